"""MobileNetV2 (Sandler et al., CVPR 2018), from torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.recipe.section import NetworkConfig

if TYPE_CHECKING:
    from torch import nn


class Config(NetworkConfig):
    """MobileNetV2.

    width: multiplier of the number of channels.
    dropout: before the classifier.
    """

    arch: Literal["mobilenet_v2"] = "mobilenet_v2"
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights."""
    from torchvision.models import mobilenet_v2

    network: nn.Module = mobilenet_v2(num_classes=num_classes, width_mult=config.width, dropout=config.dropout)
    return network


def published(config: Config) -> str | None:
    """Return the name of the network in torchvision, None for widths without published weights."""
    return "mobilenet_v2" if config.width == 1 else None
