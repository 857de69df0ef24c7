"""Every network family: shapes, published weights, dropout, width, limits of the settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torchvision.models import get_model_weights

from compress.models import efficientnet_lite, mobilenet_v2, mobilenet_v3, resnet, vgg
from compress.recipe import plugins

pytestmark = pytest.mark.usefixtures("one_thread")

REQUIRED = {"timm": {"name": "test_efficientnet"}}
CONFIGS = [
    *(plugins.load("models", name).Config(**REQUIRED.get(name, {})) for name in plugins.names("models")),
    mobilenet_v2.Config(width=0.25),
    mobilenet_v3.Config(size="large"),
    resnet.Config(depth=50),
    vgg.Config(depth=11, batch_norm=True),
]


def family(config: Any) -> Any:
    return plugins.load("models", config.arch)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.model_dump().values())))
def test_every_family_maps_images_to_logits(config: Any) -> None:
    network = family(config).build(config, 7).eval()
    with torch.inference_mode():
        logits = network(torch.zeros(2, 3, 96, 96))
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.model_dump().values())))
def test_published_names_exist_in_torchvision(config: Any) -> None:
    published = family(config).published(config)
    if published is None:
        assert config.arch in ("efficientnet_lite", "timm") or config.width != 1
    else:
        assert "IMAGENET1K_V1" in {entry.name for entry in get_model_weights(published)}


@pytest.mark.parametrize("arch", [mobilenet_v2, mobilenet_v3])
def test_dropout_is_in_the_classifier(arch: Any) -> None:
    network = arch.build(arch.Config(dropout=0.37), 3)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.37]


def test_dropout_of_efficientnet_lite_is_in_the_classifier() -> None:
    network = efficientnet_lite.build(efficientnet_lite.Config(dropout=0.37), 3)
    assert network.drop_rate == 0.37


def test_width_multiplies_the_channels() -> None:
    narrow, wide = (mobilenet_v2.build(mobilenet_v2.Config(width=width), 3) for width in (0.25, 1.0))
    assert (narrow.features[0][0].out_channels, wide.features[0][0].out_channels) == (8, 32)  # type: ignore[index,union-attr]


@pytest.mark.parametrize(
    ("arch", "wrong"),
    [
        ("mobilenet_v2", {"width": 0}),
        ("mobilenet_v2", {"width": 5}),
        ("mobilenet_v2", {"dropout": 1}),
        ("mobilenet_v3", {"size": "medium"}),
        ("resnet", {"depth": 34}),
        ("vgg", {"depth": 12}),
        ("alexnet", {"dropout": 1}),
        ("resnet", {"width": 1}),
        ("efficientnet_lite", {"size": 5}),
        ("efficientnet_lite", {"arch": "resnet"}),
    ],
)
def test_settings_are_bounded(arch: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plugins.load("models", arch).Config(**wrong)
