"""VGG (Simonyan and Zisserman, ICLR 2015), from torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.recipe.section import Config as Section

if TYPE_CHECKING:
    from torch import nn


class Config(Section):
    """depth: layers with weights. batch_norm: behind every convolution. dropout: before both hidden layers.

    weights: see `networks.weights.load_weights`.
    """

    arch: Literal["vgg"] = "vgg"
    depth: Literal[11, 13, 16, 19] = 16
    batch_norm: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    weights: str | None = None


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights; its images are at least 32 x 32."""
    from torchvision.models import get_model

    network: nn.Module = get_model(_name(config), weights=None, num_classes=num_classes, dropout=config.dropout)
    return network


def published(config: Config) -> str | None:
    """Return the name under which torchvision publishes weights for this network."""
    return _name(config)


def _name(config: Config) -> str:
    return f"vgg{config.depth}{'_bn' if config.batch_norm else ''}"
