"""Reading images: any file that Pillow opens becomes uint8 RGB, upright, resized as the preprocessing says."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from runtimes.errors import InputError, UnavailableError
from runtimes.preprocessing import Preprocessing

if TYPE_CHECKING:  # a board that gets its images otherwise needs no Pillow
    from PIL import Image


class Readable(Protocol):
    """What gives the bytes of an encoded image: a path, or a part of a larger file."""

    def read_bytes(self) -> bytes:
        """Return all of them."""


Source = Readable | bytes

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
# What Pillow's decoders raise for damaged files, read in their sources and seen on truncated and random bytes.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)


class UnreadableImageError(InputError):
    """An image file that can't be decoded."""


def content(source: Source) -> bytes:
    """Return an image file's bytes; raises UnreadableImageError where they can't be read."""
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{source}: {error.strerror or error}") from error


def decode(source: Source) -> Image.Image:
    """Decode to RGB, turned upright by its EXIF orientation.

    Raises UnreadableImageError, and UnavailableError without Pillow.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise UnavailableError("images are decoded with Pillow: pip install pillow") from error
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(content(source))) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                upright = _from_16_bits(np.asarray(upright))
            if upright.mode == "F":
                raise ValueError("floating-point pixels have no defined white; convert it to 8 or 16 bits")
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            return upright.convert("RGB")
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        name = f"{len(source)} bytes" if isinstance(source, bytes) else source
        raise UnreadableImageError(f"{name}: not a readable image ({error})") from error


def read(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return uint8 (crop, crop, 3) of a picture, or of a .npy that holds uint8 RGB (height, width, 3).

    Raises UnreadableImageError. A .npy of the right size needs no Pillow.
    """
    if path.suffix != ".npy":
        return resize_and_crop(decode(path), preprocessing)
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableImageError(f"{path}: not a readable array ({error})") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UnreadableImageError(f"{path}: is not uint8 (height, width, 3)")
    if pixels.shape[:2] == (preprocessing.crop, preprocessing.crop):
        return pixels
    return resize_and_crop(as_image(pixels), preprocessing)


def as_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return uint8 RGB (height, width, 3) as Pillow's image; raises UnavailableError without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UnavailableError("an array of another size is resized with Pillow: pip install pillow") from error
    return Image.fromarray(pixels)


def _from_16_bits(pixels: npt.NDArray[np.integer[Any]]) -> Image.Image:
    """Scale to 8 bits, which Pillow's own conversion would not: it clips."""
    from PIL import Image

    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels have no defined white; convert it to 8 or 16 bits")
    return Image.fromarray((pixels.astype(np.uint16) >> 8).astype(np.uint8))


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return uint8 (crop, crop, 3): the shorter side resized, the centre square cut out."""
    width, height = image.size
    scale = preprocessing.resize / min(width, height)
    size = (max(preprocessing.resize, round(width * scale)), max(preprocessing.resize, round(height * scale)))
    if size != image.size:
        image = image.resize(size, resampling(preprocessing))
    left, top = (size[0] - preprocessing.crop) // 2, (size[1] - preprocessing.crop) // 2
    return np.asarray(image.crop((left, top, left + preprocessing.crop, top + preprocessing.crop)))


def resampling(preprocessing: Preprocessing) -> Image.Resampling:
    """Return Pillow's name for the interpolation."""
    from PIL import Image

    return Image.Resampling[preprocessing.interpolation.upper()]
