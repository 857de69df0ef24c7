"""AlexNet (Krizhevsky, One weird trick, 2014), from torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.recipe.section import NetworkConfig

if TYPE_CHECKING:
    from torch import nn


class Config(NetworkConfig):
    """AlexNet.

    dropout: before both hidden layers of the classifier.
    """

    arch: Literal["alexnet"] = "alexnet"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights; images must be at least 63 x 63 pixels."""
    from torchvision.models import alexnet

    network: nn.Module = alexnet(num_classes=num_classes, dropout=config.dropout)
    return network


def published(config: Config) -> str | None:
    """Return the name of the network in torchvision, which publishes weights for it."""
    return "alexnet"
