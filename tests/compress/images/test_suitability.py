"""Crops and channels that do not suit the images."""

from __future__ import annotations

import io

import pytest
from image_files import encoded_image
from PIL import Image

from compress.images.samples import Sample
from compress.images.suitability import doubts
from runtimes.preprocessing import Preprocessing

LONG = Preprocessing(55, (48, 192))
RGBA = Preprocessing(55, 48, mean=(0.5,) * 4, std=(0.5,) * 4, channels="rgba")


def samples(*contents: bytes) -> tuple[Sample, ...]:
    return tuple(Sample(str(number), content, 0) for number, content in enumerate(contents))


def test_a_long_crop_of_long_images_is_no_doubt() -> None:
    assert doubts(samples(encoded_image((400, 100), "L", "PNG")), LONG) == ()


def test_a_long_crop_of_square_images_is_doubtful() -> None:
    assert doubts(samples(*[encoded_image((300, 300), "L", "PNG")] * 3, b"damaged"), LONG) == (
        "preprocessing.crop: 48x192 keeps 19 % of a typical image of 300 x 300 pixels; give a crop [height, width] in "
        "the proportions of the images",
    )  # fmt: skip


def test_images_are_turned_upright_first() -> None:
    turned, stream = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    Image.new("RGB", (100, 400)).save(stream, "JPEG", exif=turned)
    assert doubts(samples(stream.getvalue()), LONG) == ()


@pytest.mark.parametrize(("mode", "count"), [("RGB", 1), ("L", 1), ("RGBA", 0), ("LA", 0)])
def test_rgba_needs_an_image_with_alpha(mode: str, count: int) -> None:
    lines = doubts(samples(encoded_image((20, 20), mode, "PNG"), encoded_image((9, 9), "RGB", "PNG")), RGBA)
    assert len(lines) == count
    assert all("none of 2 images has an alpha channel" in line for line in lines)


def test_square_images_without_alpha_are_not_read() -> None:
    assert doubts(samples(b"damaged"), Preprocessing()) == ()
    assert doubts(samples(b"damaged"), RGBA) == ()
