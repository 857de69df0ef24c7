"""Images that are read although something about them is odd."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from compress.images import oddities
from compress.images.oddities import NARROW, SEVERAL_FRAMES, UNIFORM, oddity
from runtimes import images


def named(image: Image.Image, file_format: str, **options: object) -> str | None:
    """Return the oddity of an image in a file."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return oddity(stream.getvalue(), images.decode(stream.getvalue()))


def spread(low: int, high: int) -> np.ndarray:
    """Return 16-bit pixels of all values between two, and a defective one."""
    pixels = np.linspace(low, high, 64 * 64).astype(np.uint16).reshape(64, 64)
    pixels[0, 0] = 65535
    return pixels


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 255, NARROW), (0, 4095, NARROW), (0, 16383, NARROW), (32768, 33023, NARROW), (64000, 65535, NARROW),
     (0, 20000, None), (30000, 50000, None), (0, 65535, None)],
)  # fmt: skip
def test_sixteen_bits_of_which_few_are_used_are_odd(
    file_format: str, low: int, high: int, expected: str | None
) -> None:
    assert named(Image.fromarray(spread(low, high)), file_format) == expected


def test_black_pixels_of_sixteen_bits_are_of_one_colour() -> None:
    assert named(Image.fromarray(np.zeros((8, 8), np.uint16)), "PNG") == UNIFORM


def test_images_that_look_like_one_colour_are_odd() -> None:
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    drawn_in_alpha = np.dstack([np.zeros((8, 8, 3), np.uint8), levels * 4])
    assert named(Image.fromarray(drawn_in_alpha), "PNG") == UNIFORM
    assert named(Image.fromarray(levels % 2), "PNG") == UNIFORM
    assert named(Image.new("L", (8, 8), 30), "PNG") == UNIFORM
    assert named(Image.fromarray(levels), "PNG") is None
    assert named(Image.fromarray(levels % 2 * 255), "PNG") is None


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_frames_that_are_not_used_are_odd(file_format: str) -> None:
    frames = [Image.linear_gradient("L").rotate(90 * index).convert("RGB") for index in range(2)]
    assert named(frames[0], file_format, save_all=True, append_images=frames[1:]) == SEVERAL_FRAMES
    assert named(frames[0], file_format) is None


def test_each_kind_is_one_line() -> None:
    pairs = [("a", NARROW), ("b", SEVERAL_FRAMES), ("c", NARROW)]
    assert oddities.lines(pairs) == (f"{NARROW}: 2, for example a", f"{SEVERAL_FRAMES}: 1, for example b")
    assert oddities.lines([]) == ()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about metadata
@pytest.mark.parametrize("file_format", ["GIF", "TIFF"])
def test_damaged_later_frames_are_odd(file_format: str) -> None:
    """The first frame is whole; Pillow raises IndexError or TypeError when it counts the others."""
    first, *others = (Image.linear_gradient("L").rotate(90 * index) for index in range(4))
    stream = io.BytesIO()
    first.save(stream, file_format, save_all=True, append_images=others)
    readable = 0
    for end in range(64, len(stream.getvalue()), 997):
        try:
            decoded = images.decode(stream.getvalue()[:end])
        except images.UnreadableImageError:
            continue
        readable += 1
        assert oddity(stream.getvalue()[:end], decoded) in (None, SEVERAL_FRAMES)
    assert readable > 5
