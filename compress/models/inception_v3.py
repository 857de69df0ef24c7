"""Inception v3 (Szegedy et al., CVPR 2016), from torchvision, without the auxiliary classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.recipe.section import NetworkConfig
from runtimes.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

UNUSED_WEIGHTS = ("AuxLogits.",)  # the auxiliary classifier


class Config(NetworkConfig):
    """Inception v3.

    dropout: before the classifier.
    weights: a file, `package:NAME`, `hf:REPO`, or a name of weights that torchvision publishes, which need a mean and
        standard deviation of 0.5, the default here; null for random ones.
    """

    arch: Literal["inception_v3"] = "inception_v3"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights; images must be at least 75 x 75 pixels."""
    from torchvision.models import inception_v3

    network: nn.Module = inception_v3(
        num_classes=num_classes, dropout=config.dropout, aux_logits=False, init_weights=True, transform_input=False
    )
    return network


def published(config: Config) -> str | None:
    """Return the name of the network in torchvision, which publishes weights for it."""
    return "inception_v3"


def preprocessing(config: Config) -> Preprocessing:
    """Return the preprocessing of torchvision's weights, whose own normalisation this network leaves out."""
    return Preprocessing(342, 299, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
