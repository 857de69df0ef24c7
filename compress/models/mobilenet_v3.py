"""MobileNetV3 (Howard et al., ICCV 2019), from torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.recipe.section import NetworkConfig

if TYPE_CHECKING:
    from torch import nn


class Config(NetworkConfig):
    """MobileNetV3.

    size: variant of the network.
    dropout: in the classifier.
    """

    arch: Literal["mobilenet_v3"] = "mobilenet_v3"
    size: Literal["small", "large"] = "small"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights."""
    from torchvision.models import get_model

    network: nn.Module = get_model(
        f"mobilenet_v3_{config.size}", weights=None, num_classes=num_classes, dropout=config.dropout
    )
    return network


def published(config: Config) -> str | None:
    """Return the name of the network in torchvision, which publishes weights for it."""
    return f"mobilenet_v3_{config.size}"
