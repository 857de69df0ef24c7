"""Networks for RGB images that take other channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compress.networks.channels import first_layers, require_takes, take_channels
from compress.recipe import plugins
from runtimes.errors import InputError

FAMILIES: list[dict[str, Any]] = [
    {"arch": "alexnet"}, {"arch": "efficientnet_lite"}, {"arch": "inception_v3"}, {"arch": "mobilenet_v2"},
    {"arch": "mobilenet_v3"}, {"arch": "resnet"}, {"arch": "vgg", "depth": 11},
]  # fmt: skip


class Branches(nn.Module):
    """Two convolutions that read the image."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(channels, 4, 3, padding=1, bias=False), nn.Conv2d(channels, 4, 1)
        self.depthwise = nn.Conv2d(3, 3, 3, groups=3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.wide(images) + self.narrow(images)).mean((2, 3))


def test_every_built_in_family_is_tried() -> None:
    assert {str(family["arch"]) for family in FAMILIES} <= set(plugins.names("models"))


@pytest.mark.parametrize("section", FAMILIES, ids=lambda section: str(section["arch"]))
def test_a_grey_image_gives_the_outputs_of_an_rgb_image_with_equal_channels(section: dict[str, Any]) -> None:
    family = plugins.load("models", section["arch"])
    torch.manual_seed(0)
    network = family.build(family.Config.model_validate(section), 5).eval()
    grey = torch.randn(1, 1, 80, 112)
    with torch.no_grad():
        expected = network(grey.expand(1, 3, 80, 112))
        take_channels(network, 1)
        assert torch.allclose(network(grey), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_alpha_has_no_effect_before_training_but_a_gradient() -> None:
    network, image = Branches(), torch.randn(2, 3, 8, 12)
    expected = network(image)
    take_channels(network, 4)
    outputs = network(torch.cat([image, torch.randn(2, 1, 8, 12)], 1))
    assert torch.allclose(outputs, expected, atol=1e-6)
    outputs.sum().backward()
    assert network.wide.weight.grad is not None
    assert network.wide.weight.grad[:, 3].abs().min() > 0


def test_all_branches_that_read_the_image_are_changed_and_no_others() -> None:
    network = Branches()
    assert first_layers(network) == ["wide", "narrow"]
    take_channels(network, 1)
    assert (network.wide.in_channels, network.narrow.in_channels, network.depthwise.in_channels) == (1, 1, 3)


class Standardized(nn.Conv2d):
    """Convolution with standardized kernels, as in BiT and NFNet."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / weight.std((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(images, weight, padding=1)


@pytest.mark.parametrize("channels", [1, 4])
def test_layers_that_normalise_their_kernels_are_named(channels: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Standardized(3, 8, 3), nn.Flatten())
    assert take_channels(network, channels) == ("0",)
    assert take_channels(Branches(), channels) == ()


def test_a_network_of_its_own_number_of_channels_stays_as_it_is() -> None:
    network = Branches(1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    take_channels(network, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_rgb_changes_nothing() -> None:
    network = Branches()
    weight = network.wide.weight
    take_channels(network, 3)
    assert network.wide.weight is weight


@pytest.mark.parametrize("shape", [(1, 8, 12), (3, 8, 12)])
def test_images_that_the_network_takes_are_accepted(shape: tuple[int, int, int]) -> None:
    network = Branches()
    take_channels(network, shape[0])
    require_takes(network, shape)


def test_images_that_the_network_does_not_take_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"can't take images of 1 channel and 8 x 12 pixels \(.*\); change") as caught:
        require_takes(Branches(), (1, 8, 12))
    assert "\n" not in str(caught.value)


def test_a_network_that_gives_no_logits_is_refused() -> None:
    with pytest.raises(InputError, match=r"is no image classifier: .* the shape \(1, 3, 8, 8\), not \(1, classes\)"):
        require_takes(nn.Identity(), (3, 8, 8))
