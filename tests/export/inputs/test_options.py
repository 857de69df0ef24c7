"""Tests of choosing a preprocessing from options and from what a file says."""

from __future__ import annotations

from typing import Any

import pytest

from export.inputs.image_input import ImageInput
from export.inputs.options import (
    NONE_GIVEN,
    PreprocessingOptions,
    crop_text,
    described,
    options_text,
    raw_pixels,
    require_fit,
)
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing


def image(channels: int | None = 3, height: int | None = None, width: int | None = None, **others: Any) -> ImageInput:
    fields: dict[str, Any] = {"name": "x", "dtype": "float32", "layout": "NCHW", "batch": None, **others}
    return ImageInput(channels=channels, height=height, width=width, **fields)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (image(), Preprocessing()),
        (image(None), Preprocessing()),
        (image(3, 224, 224), Preprocessing()),
        (image(3, 299, 299), Preprocessing(342, 299)),
        (image(3, 48, 192), Preprocessing(55, (48, 192))),
        (image(3, 48, None), Preprocessing(55, 48)),
        (image(3, 4096, 4096), Preprocessing(4096, 4096)),
        (image(1, 64, 64), Preprocessing(73, 64, mean=(0.449,), std=(0.226,), channels="grey")),
        (image(4), Preprocessing(mean=(0.449,) * 4, std=(0.226,) * 4, channels="rgba")),
        (image(6), Preprocessing(mean=(0.449,) * 6, std=(0.226,) * 6, channels="array")),
        (image(dtype="uint8"), Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3)),
    ],
)
def test_what_is_not_given_follows_from_the_file(file: ImageInput, expected: Preprocessing) -> None:
    assert NONE_GIVEN.for_file(file) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"crop": 64}, Preprocessing(73, 64)),
        ({"crop": (48, 192), "resize": 50}, Preprocessing(50, (48, 192))),
        ({"resize": 100}, Preprocessing(100, 100)),
        ({"resize": 300}, Preprocessing(300, 224)),
        ({"mean": (0.5,), "std": (0.25,)}, Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)),
        ({"channels": "bgr"}, Preprocessing(mean=(0.406, 0.456, 0.485), std=(0.225, 0.224, 0.229), channels="bgr")),
        ({"channels": "bgr", "mean": (0.4, 0.5, 0.6)},
         Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.225, 0.224, 0.229), channels="bgr")),
        ({"channels": "array"}, Preprocessing(mean=(0.449,) * 3, std=(0.226,) * 3, channels="array")),
    ],
)  # fmt: skip
def test_options_take_precedence(options: dict[str, Any], expected: Preprocessing) -> None:
    assert PreprocessingOptions(**options).for_file(image()) == expected


@pytest.mark.parametrize(
    ("options", "file", "message"),
    [
        ({"crop": 64}, image(3, 48, 192),
         "takes images of 48 x 192 pixels, and the preprocessing crops to 64 x 64; set --crop 48x192"),
        ({"crop": (48, 192)}, image(3, 64, 64),
         "takes images of 64 x 64 pixels, and the preprocessing crops to 48 x 192; set --crop 64"),
        ({"crop": 64}, image(3, 48, None),
         r"takes images of 48 x \? pixels, and the preprocessing crops to 64 x 64; set --crop 48x64"),
        ({"crop": 0}, image(), "must have 1 <= crop <= resize <= 4096, not crop 0"),
        ({"crop": 64, "resize": 0}, image(), "not crop 64 and resize 0"),
        ({"channels": "grey"}, image(), "grey is for 1 channels, and the network takes 3; set --channels rgb"),
        ({"channels": "bgr"}, image(1), "bgr is for 3 channels, and the network takes 1; set --channels grey"),
        ({"mean": (0.5, 0.5)}, image(), "--mean: give one number, or one for each of 3 channels, as in 0.5,0.5,0.5"),
        ({"std": (0.5,) * 3}, image(1), "--std: give one number, or one for each of 1 channels, as in 0.5; not 3"),
        ({"mean": (123.7,)}, image(), "mean in 0 to 1, not 123.7"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_its_cure(options: dict[str, Any], file: ImageInput, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PreprocessingOptions(**options).for_file(file)


def test_the_cure_of_every_refused_crop_is_accepted() -> None:
    for file in (image(3, 48, 192), image(3, 64, 64), image(3, 48, None), image(3, None, 30)):
        with pytest.raises(InputError) as caught:
            PreprocessingOptions(crop=17).for_file(file)
        height, _, width = str(caught.value).rpartition("--crop ")[2].partition("x")
        assert PreprocessingOptions(crop=(int(height), int(width or height))).for_file(file)


def test_given_settings_contradict_another_preprocessing_only_where_they_differ() -> None:
    own = Preprocessing(64, 56, mean=(0.5,) * 3)
    assert not NONE_GIVEN.contradict(own)
    assert not PreprocessingOptions(crop=56, mean=(0.5,)).contradict(own)
    assert not PreprocessingOptions.of(own).contradict(own)
    assert PreprocessingOptions(crop=57).contradict(own)
    assert PreprocessingOptions(channels="bgr").contradict(own)


def test_a_preprocessing_with_other_channels_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"of 1 channels, and the preprocessing gives 3 \(rgb\); set --channels grey"):
        require_fit(image(1), Preprocessing())


def test_texts_name_every_setting() -> None:
    preprocessing = Preprocessing(50, (48, 192), channels="bgr")
    assert described(preprocessing) == (
        "resize 50, crop 48x192, bilinear, mean 0.485,0.456,0.406, std 0.229,0.224,0.225, channels bgr"
    )
    assert options_text(preprocessing) == (
        "--resize 50 --crop 48x192 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --channels bgr"
    )
    assert (crop_text((8, 8)), crop_text((8, 9))) == ("8", "8x9")


def test_raw_pixels_are_not_changed() -> None:
    import numpy as np

    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    raw = raw_pixels(Preprocessing(16, 16, mean=(0.449,), std=(0.226,), channels="grey"))
    np.testing.assert_array_equal(raw.normalize(pixels)[0, 0], pixels[0, :, :, 0].astype(np.float32))
