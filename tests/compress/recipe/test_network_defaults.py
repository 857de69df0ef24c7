"""Defaults of a recipe that its network decides."""

from __future__ import annotations

from typing import Any

import pytest

from compress.recipe.network_defaults import IMAGENET, complete, has_fixed_size, usual
from compress.recipe.recipe import Recipe
from runtimes.preprocessing import Preprocessing

VIT = {"arch": "timm", "name": "test_vit"}
LITE1 = Preprocessing(272, 240, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate({"name": "x", "data": {"name": "synthetic"}, **sections})


@pytest.mark.parametrize(("model", "expected"), [
    ({"arch": "mobilenet_v2"}, IMAGENET),
    ({"arch": "resnet", "depth": 50, "weights": "IMAGENET1K_V2"}, IMAGENET),
    ({"arch": "efficientnet_lite", "size": 1}, LITE1),
    ({"arch": "inception_v3"}, Preprocessing(342, 299, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
    (VIT, Preprocessing(168, 160, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
])  # fmt: skip
def test_missing_keys_are_those_of_the_network(model: dict[str, Any], expected: Preprocessing) -> None:
    assert usual(model) == recipe(model=model).preprocessing == expected


def test_what_is_given_stays() -> None:
    given = {"resize": 96, "crop": 80, "interpolation": "lanczos", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    result = recipe(model=VIT, preprocessing=given).preprocessing
    assert result == Preprocessing(96, 80, "lanczos", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_without_resize_the_share_of_the_network_is_cropped() -> None:
    assert recipe(model={"arch": "mobilenet_v2"}, preprocessing={"crop": 112}).preprocessing.resize == 128
    assert recipe(model=VIT, preprocessing={"crop": 64}).preprocessing.resize == 67


@pytest.mark.parametrize(("channels", "mean"), [(1, (0.5,)), ("grey", (0.5,)), ("rgba", (0.5,) * 4), (3, (0.5,) * 3)])
def test_other_channels_get_the_values_of_the_network(channels: object, mean: tuple[float, ...]) -> None:
    result = recipe(model=VIT, preprocessing={"crop": [32, 64], "channels": channels})
    assert (result.preprocessing.mean, result.preprocessing.resize) == (mean, 34)
    assert result.model.image_size == (32, 64)


def test_networks_of_a_fixed_size_get_that_of_the_images_also_teachers() -> None:
    teacher = {"network": {**VIT, "weights": "x.pth"}}
    stages = [{"stage": "train", "epochs": 1, "teacher": teacher},
              {"stage": "prune", "macs": 0.5, "fine_tune": {"epochs": 1, "teacher": teacher}}]  # fmt: skip
    result = recipe(model=VIT, preprocessing={"crop": 64}, stages=stages)
    assert result.model.image_size == (64, 64)
    assert result.stages[0].teacher.network.image_size == (64, 64)
    assert result.stages[1].fine_tune.teacher.network.image_size == (64, 64)
    assert "image_size" not in result.to_yaml()
    assert has_fixed_size(VIT)
    assert recipe(model={**VIT, "name": "test_resnet"}).model.image_size is None


@pytest.mark.parametrize(
    "content", [None, [], {}, {"preprocessing": 3}, {"model": {"arch": "timm"}}, {"model": {"arch": 3}, "stages": [5]}]
)
def test_invalid_content_is_left_to_the_validation(content: Any) -> None:
    result = complete(content)
    if isinstance(content, dict):
        assert {**result, **content} == result
    else:
        assert result == content
    assert usual(None) == IMAGENET
