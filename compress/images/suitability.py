"""Find crops that leave out most of the images, and channels that the images do not have."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from compress.images.samples import Sample
from runtimes import images
from runtimes.preprocessing import Preprocessing, Sides

MOST_IMAGES = 32  # that are looked at
LEAST_SHARE = 0.4  # of an image's area; 8/7 as the ratio of resize and crop keeps 0.77
TURNED = range(5, 9)  # values of EXIF's orientation that swap width and height
ORIENTATION = 0x0112


@dataclass(frozen=True)
class _Header:
    """Size (width, height) of an upright image, and whether it has an alpha channel."""

    size: Sides
    has_alpha: bool


def doubts(samples: tuple[Sample, ...], preprocessing: Preprocessing) -> tuple[str, ...]:
    """Return one line for each setting of a crop that is no square, or of RGBA, which some of the images contradict.

    Reads the headers of at most 32 images, and none for square crops of RGB or grey images.
    """
    is_long, with_alpha = not isinstance(preprocessing.crop, int), preprocessing.channels == "rgba"
    if not (is_long or with_alpha):
        return ()
    step = max(1, len(samples) // MOST_IMAGES)
    headers = [header for sample in samples[::step][:MOST_IMAGES] if (header := _header(sample)) is not None]
    lines = []
    if is_long and headers:
        lines += _left_out([header.size for header in headers], preprocessing)
    if with_alpha and headers and not any(header.has_alpha for header in headers):
        lines.append(
            f"preprocessing.channels: rgba, but none of {len(headers)} images has an alpha channel; rgb is faster"
        )
    return tuple(lines)


def _left_out(sizes: list[Sides], preprocessing: Preprocessing) -> list[str]:
    """Return a line if the crop leaves out most of the typical image."""
    resized = [preprocessing.resized_size(*size) for size in sizes]
    shares = [preprocessing.width * preprocessing.height / (width * height) for width, height in resized]
    typical = int(np.argsort(shares)[len(shares) // 2])
    if shares[typical] >= LEAST_SHARE:
        return []
    width, height = sizes[typical]
    return [
        f"preprocessing.crop: {preprocessing.crop_text} keeps {100 * shares[typical]:.0f} % of a typical image of "
        f"{width} x {height} pixels; give a crop [height, width] in the proportions of the images"
    ]


def _header(sample: Sample) -> _Header | None:
    """Return the header of an image, None if it can't be read."""
    try:
        with Image.open(io.BytesIO(images.content(sample.source))) as image:
            turned = image.getexif().get(ORIENTATION) in TURNED
            size = image.size[::-1] if turned else image.size
            return _Header(size, "A" in image.getbands() or "transparency" in image.info)
    except (*images.UNREADABLE, Image.DecompressionBombError, images.UnreadableImageError):
        return None
