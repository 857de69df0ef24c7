"""The section `preprocessing`: defaults that follow from the crop and the channels."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compress.recipe.preprocessing import PreprocessingSection, usual_values
from compress.recipe.recipe import Recipe
from runtimes.preprocessing import CHANNEL_COUNTS, Preprocessing

LEAST: dict[str, Any] = {"name": "x", "data": {"name": "synthetic"}, "model": {"arch": "resnet"}}
SIDES = st.integers(1, 400)


def complete(**section: Any) -> Preprocessing:
    return PreprocessingSection.model_validate(section).complete()


def test_an_empty_section_is_the_usual_preprocessing() -> None:
    assert complete() == Preprocessing()
    assert Recipe.model_validate(LEAST).preprocessing == Preprocessing()


def test_a_long_grey_crop_needs_no_other_key() -> None:
    assert complete(crop=[48, 192], channels=1) == Preprocessing(
        55, (48, 192), "bilinear", (0.449,), (0.226,), "grey"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"crop": 112}, {"resize": 128, "crop": 112}),
        ({"crop": 300}, {"resize": 343, "crop": 300}),
        ({"crop": [64, 64]}, {"resize": 73, "crop": 64}),
        ({"crop": 4096}, {"resize": 4096, "crop": 4096}),
        ({"mean": 0.5, "std": [0.25]}, {"mean": (0.5,) * 3, "std": (0.25,) * 3}),
        ({"channels": 3}, {"channels": "rgb"}),
        ({"channels": "grey", "mean": 0.5}, {"channels": "grey", "mean": (0.5,), "std": (0.226,)}),
        ({"channels": 4, "std": 0.2}, {"channels": "rgba", "mean": (0.485, 0.456, 0.406, 0.5), "std": (0.2,) * 4}),
    ],
)
def test_settings_that_are_not_given_follow_from_the_others(section: dict[str, Any], expected: dict[str, Any]) -> None:
    preprocessing = complete(**section)
    assert {name: getattr(preprocessing, name) for name in expected} == expected


@given(
    crop=st.one_of(SIDES, st.tuples(SIDES, SIDES).filter(lambda sides: max(sides) <= 10 * min(sides))),
    channels=st.sampled_from(["rgb", "grey", "rgba", 1, 3, 4]),
)
def test_any_crop_and_channels_survive_writing_and_reading_the_recipe(crop: object, channels: object) -> None:
    recipe = Recipe.model_validate({**LEAST, "preprocessing": {"crop": crop, "channels": channels}})
    assert recipe.preprocessing.channel_count == CHANNEL_COUNTS[recipe.preprocessing.channels]
    assert Recipe.model_validate(yaml.safe_load(recipe.to_yaml())) == recipe
    assert Recipe.model_validate({**LEAST, "preprocessing": recipe.preprocessing}) == recipe


@pytest.mark.parametrize("wrong", [[], [0, 5], [48, 192, 3], 0, 5000, 1.5, "48x192", None])
def test_a_crop_that_is_no_one_or_two_sides_is_one_error(wrong: object) -> None:
    with pytest.raises(ValidationError, match=r"must be one side in pixels, or \[height, width\]") as caught:
        complete(crop=wrong)
    assert len(caught.value.errors()) == 1


def test_usual_values_of_grey_are_the_mean_of_the_colours() -> None:
    assert usual_values((0.3, 0.4, 0.8), "grey") == (0.5,)
    assert usual_values((0.3, 0.4, 0.8), "rgba") == (0.3, 0.4, 0.8, 0.5)
    assert usual_values((0.3, 0.4, 0.8), "rgb") == (0.3, 0.4, 0.8)
