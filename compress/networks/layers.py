"""The weighted layers of a network: execution order, outputs, channel counts and multiplications."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerShape:
    """Channel counts of a convolution or linear layer. groups: equal to `inputs` for a depthwise convolution."""

    outputs: int
    inputs: int
    groups: int

    @property
    def connections(self) -> int:
        """Return the number of connected (input, output) channel pairs: the number of weights of a 1x1 kernel."""
        return self.outputs * (self.inputs // self.groups)


def layer_shapes(network: nn.Module) -> dict[str, LayerShape]:
    """Return the channel counts of every convolution and linear layer, by module name."""
    shapes = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            shapes[name] = LayerShape(module.out_channels, module.in_channels, module.groups)
        elif isinstance(module, nn.Linear):
            shapes[name] = LayerShape(module.out_features, module.in_features, 1)
    return shapes


def run_layers(network: nn.Module, example: Tensor) -> tuple[list[tuple[nn.Conv2d | nn.Linear, Tensor]], Tensor]:
    """Run a network in eval mode; return its convolutions and linear layers, each with its output, and the logits.

    Layers are listed in execution order; one that runs twice is listed twice.
    """
    calls: list[tuple[nn.Conv2d | nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: calls.append((module, output)))
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        with torch.no_grad():
            logits: Tensor = network.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, logits


def macs_per_connection(network: nn.Module, example: Tensor) -> dict[str, int]:
    """Return, for each layer that runs, the multiplications of one connection for one image.

    That is the kernel size times the number of output positions, summed over all calls of the layer. It does not depend
    on the channel counts: a layer's MACs are this number times `LayerShape.connections`.
    """
    macs: dict[str, int] = {}
    names = {module: name for name, module in network.named_modules()}
    for module, output in run_layers(network, example)[0]:
        kernel_size = module.weight[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        positions = output.numel() // len(module.weight) // len(example)
        macs[names[module]] = macs.get(names[module], 0) + kernel_size * positions
    return macs


def count_macs(network: nn.Module, example: Tensor) -> int:
    """Return the multiply-accumulate operations of all convolutions and linear layers for one image."""
    shapes = layer_shapes(network)
    return sum(macs * shapes[name].connections for name, macs in macs_per_connection(network, example).items())
