"""Tests of runtimes.preprocessing against the float64 formula."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtimes.preprocessing import Preprocessing

EPSILON = np.finfo(np.float32).eps
MEANS = st.tuples(*[st.floats(0, 1)] * 3)
STDS = st.tuples(*[st.floats(0.01, 1)] * 3)


@settings(max_examples=100)
@given(
    images=hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3, st.just(3))),
    mean=MEANS,
    std=STDS,
)
def test_normalize_is_the_formula_in_float64(
    images: np.ndarray, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    found = Preprocessing(mean=mean, std=std).normalize(images)
    wanted = ((images / 255.0 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    bound = 4 * EPSILON * ((1 + np.array(mean)) / np.array(std))[:, None, None]
    assert found.shape == wanted.shape
    assert (abs(found - wanted) <= bound).all()


def test_normalize_gives_contiguous_float32_and_leaves_the_images_alone() -> None:
    images = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    before = images.copy()
    found = Preprocessing().normalize(images)
    assert found.dtype == np.float32
    assert found.shape == (2, 3, 4, 5)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(images, before)


def test_every_pixel_value_of_every_channel_is_right_with_the_usual_numbers() -> None:
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None, None], 3, axis=3)
    preprocessing = Preprocessing()
    found = preprocessing.normalize(pixels)[0, :, :, 0]
    for channel in range(3):
        wanted = (np.arange(256) / 255 - preprocessing.mean[channel]) / preprocessing.std[channel]
        np.testing.assert_allclose(found[channel], wanted, rtol=0, atol=2e-6)


@settings(max_examples=50)
@given(mean=MEANS, std=STDS)
def test_scale_and_offset_say_the_same_as_mean_and_std(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    scale, offset = Preprocessing(mean=mean, std=std).scale_and_offset
    assert scale.dtype == offset.dtype == np.float32
    np.testing.assert_allclose(scale, 1 / (255 * np.array(std)), rtol=1e-6)
    np.testing.assert_allclose(offset, -np.array(mean) / np.array(std), rtol=1e-6, atol=1e-30)


@settings(max_examples=50)
@given(
    made=st.builds(
        Preprocessing,
        resize=st.integers(100, 300),
        crop=st.integers(1, 100) | st.tuples(st.integers(20, 100), st.integers(20, 100)),
        interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
        mean=MEANS,
        std=STDS,
        channels=st.sampled_from(["rgb", "bgr"]),
    )
)
def test_json_gives_back_the_same(made: Preprocessing) -> None:
    assert Preprocessing.from_json(json.loads(json.dumps(asdict(made)))) == made


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 0}, "crop 0"),
        ({"crop": -1}, "crop -1"),
        ({"crop": 225, "resize": 224}, "crop 225 and resize 224"),
        ({"resize": 4097}, "resize 4097"),
        ({"crop": (48, 192), "resize": 47}, "crop 48x192 and resize 47"),
        ({"crop": (16, 512), "resize": 256}, "crop 16x512 and resize 256"),
        ({"crop": (16, 512, 3)}, r"not \(16, 512, 3\) and 256"),
        ({"crop": "224"}, "not '224' and 256"),
        ({"channels": "gbr"}, r"channels of \('rgb', .*, not 'gbr'"),
        ({"channels": "grey"}, r"as channels \(grey: 1\), not 3 and 3"),
        ({"channels": "array", "mean": (), "std": ()}, "not 0 and 0"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0, not 0.0"),
        ({"std": (0.2, 0.2, -1.0)}, "std above 0, not -1.0"),
        ({"std": (0.2, 0.2, 1e-9)}, r"std of at least 1/65535, not 1e-09"),
        ({"mean": (123.675, 116.28, 103.53)}, r"mean in 0 to 1, not 123.675, 116.28, 103.53; .*: 0.485, 0.456, 0.406$"),
        ({"std": (58.395, 57.12, 57.375)}, r"std in 0 to 1, not 58.395, 57.12, 57.375; .*: 0.229, 0.224, 0.225$"),
        ({"mean": (0.485, 0.456, 104.0)}, r"mean in 0 to 1, not 0.485, 0.456, 104; "),
        ({"std": (255.0, 255.0, 255.0)}, r"std in 0 to 1, not 255, 255, 255; .*: 1, 1, 1$"),
        ({"mean": (-0.1, 0.5, 0.5)}, r"mean in 0 to 1, not -0.1, 0.5, 0.5$"),
    ],
)
def test_numbers_out_of_bounds_are_refused_with_the_number(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**fields)


@pytest.mark.parametrize(("crop", "resize"), [(1, 1), (224, 224), (4096, 4096)])
def test_numbers_on_the_bounds_are_taken(crop: int, resize: int) -> None:
    assert Preprocessing(crop=crop, resize=resize).crop == crop


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.5,) * 3, (0.5,) * 3),
        ((127 / 255,) * 3, (128 / 255,) * 3),
        ((0.0,) * 3, (1.0,) * 3),
        ((0.0,) * 3, (1 / 255,) * 3),
        ((1.0,) * 3, (1 / 65535,) * 3),
    ],
    ids=["ImageNet", "-1 to 1", "efficientnet_lite", "0 to 1", "0 to 255", "bounds"],
)
def test_usual_normalisations_are_accepted_and_finite(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    preprocessing = Preprocessing(mean=mean, std=std)  # type: ignore[arg-type]
    pixels = np.asarray([0, 255], np.uint8)[None, :, None, None].repeat(3, axis=3)
    assert np.isfinite(preprocessing.normalize(pixels)).all()


@pytest.mark.parametrize("field", ["resize", "crop", "interpolation", "mean", "std"])
def test_a_dictionary_without_a_setting_is_a_key_error(field: str) -> None:
    fields = asdict(Preprocessing())
    del fields[field]
    with pytest.raises(KeyError, match=field):
        Preprocessing.from_json(fields)


def test_older_files_have_no_channels() -> None:
    fields = asdict(Preprocessing())
    del fields["channels"]
    assert Preprocessing.from_json(fields) == Preprocessing()


def test_a_square_has_one_crop() -> None:
    assert Preprocessing(crop=(96, 96)) == Preprocessing(crop=96)
    assert (Preprocessing(crop=96).input_shape, Preprocessing(crop=(48, 192)).image_shape) == (
        (3, 96, 96), (48, 192, 3),
    )  # fmt: skip


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Preprocessing.from_json({**asdict(Preprocessing()), "colour": "BGR"})
