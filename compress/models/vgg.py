"""VGG (Simonyan and Zisserman, ICLR 2015), from torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.recipe.section import NetworkConfig

if TYPE_CHECKING:
    from torch import nn


class Config(NetworkConfig):
    """VGG.

    depth: number of layers with weights.
    batch_norm: add a BatchNorm after every convolution.
    dropout: before both hidden layers of the classifier.
    """

    arch: Literal["vgg"] = "vgg"
    depth: Literal[11, 13, 16, 19] = 16
    batch_norm: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights; images must be at least 32 x 32 pixels."""
    from torchvision.models import get_model

    network: nn.Module = get_model(_name(config), weights=None, num_classes=num_classes, dropout=config.dropout)
    return network


def published(config: Config) -> str | None:
    """Return the name of the network in torchvision, which publishes weights for it."""
    return _name(config)


def _name(config: Config) -> str:
    return f"vgg{config.depth}{'_bn' if config.batch_norm else ''}"
