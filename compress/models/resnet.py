"""ResNet (He et al., CVPR 2016), from torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from compress.recipe.section import NetworkConfig

if TYPE_CHECKING:
    from torch import nn


class Config(NetworkConfig):
    """ResNet.

    depth: number of layers; 18 has basic blocks, 50 bottleneck blocks.
    """

    arch: Literal["resnet"] = "resnet"
    depth: Literal[18, 50] = 18


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights."""
    from torchvision.models import get_model

    network: nn.Module = get_model(f"resnet{config.depth}", weights=None, num_classes=num_classes)
    return network


def published(config: Config) -> str | None:
    """Return the name of the network in torchvision, which publishes weights for it."""
    return f"resnet{config.depth}"
