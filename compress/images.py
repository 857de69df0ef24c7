"""Reading images: any file that Pillow opens becomes uint8 RGB, upright, resized as the preprocessing says."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

Source = Path | bytes  # a file, or the bytes of one

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# What Pillow's decoders raise for damaged files, read in their sources and seen on truncated and random bytes.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class UnreadableImageError(InputError):
    """An image file that can't be decoded."""


def decode(source: Source) -> Image.Image:
    """Decode to RGB, turned upright by its EXIF orientation; raises UnreadableImageError."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                upright = _from_16_bits(np.asarray(upright))
            if upright.mode == "F":
                raise ValueError("floating-point pixels have no defined white; convert it to 8 or 16 bits")
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            return upright.convert("RGB")
    except UNREADABLE as error:
        name = f"{len(source)} bytes" if isinstance(source, bytes) else source
        raise UnreadableImageError(f"{name}: not a readable image ({error})") from error


def _from_16_bits(pixels: npt.NDArray[np.integer[Any]]) -> Image.Image:
    """Scale to 8 bits, which Pillow's own conversion would not: it clips."""
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels have no defined white; convert it to 8 or 16 bits")
    return Image.fromarray((pixels.astype(np.uint16) >> 8).astype(np.uint8))


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return uint8 (crop, crop, 3): the shorter side resized, the centre square cut out."""
    width, height = image.size
    scale = preprocessing.resize / min(width, height)
    size = (max(preprocessing.resize, round(width * scale)), max(preprocessing.resize, round(height * scale)))
    if size != image.size:
        image = image.resize(size, RESAMPLING[preprocessing.interpolation])
    left, top = (size[0] - preprocessing.crop) // 2, (size[1] - preprocessing.crop) // 2
    return np.asarray(image.crop((left, top, left + preprocessing.crop, top + preprocessing.crop)))
