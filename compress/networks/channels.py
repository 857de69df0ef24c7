"""Let networks for RGB images take images of one channel, or of four."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.recipe.foreign import NETWORK_ERRORS
from runtimes.console import counted
from runtimes.errors import InputError

RGB = 3


def take_channels(network: nn.Module, channels: int) -> tuple[str, ...]:
    """Change the first layers, in place, so that they read images of 1 or 4 channels in place of RGB.

    The kernels for one channel are the sums over red, green and blue: a grey image gives the output of an RGB image
    with three equal channels. Of RGBA, the alpha channel starts with zeros: any alpha gives the output of RGB. Returns
    the names of layers of which this does not hold, because they normalise their kernels (Qiao et al., 2019). A
    network that was built for its own number of channels has no first layers for RGB and stays as it is.
    """
    if channels == RGB:
        return ()
    others = []
    for name in first_layers(network):
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        rgb, image = _example(layer, channels)
        with torch.no_grad():
            expected = layer(rgb)
            layer.weight = nn.Parameter(_kernels(layer.weight.detach(), channels), layer.weight.requires_grad)
            layer.in_channels = channels
            if not torch.allclose(layer(image), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
                others.append(name)
    return tuple(others)


def first_layers(network: nn.Module) -> list[str]:
    """Return the names of the convolutions that read RGB images: several in a network with parallel branches."""
    return [name for name, layer in network.named_modules()
            if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.in_channels == RGB]  # fmt: skip


def require_takes(network: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raise InputError for a network that can't take images of a shape (C, H, W), or gives no logits."""
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, *shape))
    except NETWORK_ERRORS as error:
        channels, height, width = shape
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise InputError(
            f"the network can't take images of {counted(channels, 'channel')} and {height} x {width} pixels "
            f"({reason}); change the section preprocessing, or choose another network"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = f"the shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the network is no image classifier: for one image it returns {given}, not (1, classes)")


def _kernels(weight: Tensor, channels: int) -> Tensor:
    """Return the kernels (outputs, channels, height, width) in place of those for RGB."""
    if channels == 1:
        return weight.sum(1, keepdim=True)
    outputs, _, height, width = weight.shape
    return torch.cat([weight, weight.new_zeros(outputs, channels - RGB, height, width)], 1)


def _example(layer: nn.Conv2d, channels: int) -> tuple[Tensor, Tensor]:
    """Return an RGB image, and the image of other channels that should give the same outputs."""
    height, width = (4 * kernel * dilation for kernel, dilation in zip(layer.kernel_size, layer.dilation, strict=True))
    image = torch.linspace(0, 100, channels * height * width).sin().view(1, channels, height, width).to(layer.weight)
    return image.expand(1, RGB, height, width) if channels == 1 else image[:, :RGB], image
