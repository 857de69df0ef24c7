"""Images that are read although something about them is odd."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from compress.images import oddities
from compress.images.oddities import DARK, SEVERAL_FRAMES, oddity
from runtimes import images


def named(image: Image.Image, file_format: str, **options: object) -> str | None:
    """Return the oddity of an image in a file."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return oddity(stream.getvalue(), images.decode(stream.getvalue()))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("largest", "expected"), [(16383, DARK), (5000, DARK), (16384, None), (0, None)])
def test_fourteen_of_sixteen_bits_are_dark(file_format: str, largest: int, expected: str | None) -> None:
    assert named(Image.fromarray(np.full((8, 8), largest, np.uint16)), file_format) == expected


@pytest.mark.parametrize("value", [0, 30])
def test_a_dark_image_of_eight_bits_is_not_odd(value: int) -> None:
    assert named(Image.new("L", (8, 8), value), "PNG") is None


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_frames_that_are_not_used_are_odd(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), (200 * index, 100, 50)) for index in range(2)]
    assert named(frames[0], file_format, save_all=True, append_images=frames[1:]) == SEVERAL_FRAMES
    assert named(frames[0], file_format) is None


def test_each_kind_is_one_line() -> None:
    pairs = [("a", DARK), ("b", SEVERAL_FRAMES), ("c", DARK)]
    assert oddities.lines(pairs) == (f"{DARK}: 2, for example a", f"{SEVERAL_FRAMES}: 1, for example b")
    assert oddities.lines([]) == ()
