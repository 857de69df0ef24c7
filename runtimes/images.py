"""Decode image files to upright uint8 RGB with Pillow; resize and crop them for a network."""

from __future__ import annotations

import functools
import io
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from runtimes.errors import InputError, UnavailableError
from runtimes.files import printable
from runtimes.preprocessing import Preprocessing

if TYPE_CHECKING:  # Pillow is optional on a board
    from PIL import Image


class Readable(Protocol):
    """Source of an encoded image's bytes: a path or a part of a larger file."""

    def read_bytes(self) -> bytes:
        """Return all bytes."""


Source = Readable | bytes

MAX_ASPECT_RATIO = 16  # of images that are resized whole; of longer ones, only the part that is kept is resized
MAX_BLACK = 15  # in 8 bits; an image of more bits that reaches no higher value looks black
# Formats of Pillow that are no still pictures or that it can't decode alone: EPS needs Ghostscript, WMF needs Windows.
NO_PICTURES = frozenset({"BUFR", "EPS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"})
NO_PICTURE_EXTENSIONS = frozenset({".pcd", ".pfm"})  # usually point clouds; floating-point pixels
# Exceptions of Pillow's decoders for damaged files, from their sources and tests with truncated and random bytes. The
# last four: AVIF and BLP, later frames of GIF, later pages of TIFF, SPIDER.
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, RuntimeError, IndexError, TypeError, AttributeError,
)  # fmt: skip


class UnreadableImageError(InputError):
    """An image file cannot be decoded."""


def content(source: Source) -> bytes:
    """Return an image file's bytes; raises UnreadableImageError if they cannot be read."""
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{printable(str(source))}: {error.strerror or error}") from error


@functools.cache
def extensions() -> frozenset[str]:
    """Return the lower-case extensions of the images that the installed Pillow can decode, such as .jpg."""
    try:
        from PIL import Image, features
    except ImportError as error:
        raise UnavailableError("decoding images needs Pillow: pip install pillow") from error
    formats = {extension: name for extension, name in Image.registered_extensions().items() if name not in NO_PICTURES}
    if not features.check("jpg_2000"):  # Pillow registers this format without its decoder
        formats = {extension: name for extension, name in formats.items() if name != "JPEG2000"}
    return frozenset(formats) - NO_PICTURE_EXTENSIONS


def is_image(name: str) -> bool:
    """Return whether the extension of a file's name, in any case, is that of an image which can be decoded here."""
    return extension_of(name) in extensions()


def extension_of(name: str) -> str:
    """Return the extension of a file's name in lower case, such as .jpg; empty if it has none."""
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot and stem and extension else ""


def decode(source: Source) -> Image.Image:
    """Decode to RGB, rotated by the EXIF orientation.

    Raises UnreadableImageError for a damaged file, UnavailableError without Pillow.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise UnavailableError("decoding images needs Pillow: pip install pillow") from error
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(content(source))) as image:
            has_16_bit_colours = ";16" in repr(image.tile)  # Pillow itself reduces them to 8 bits
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                return _from_16_bits(np.asarray(upright)).convert("RGB")
            if upright.mode == "F":
                raise ValueError("floating-point pixels have no defined white level; convert the image to 8 or 16 bits")
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            rgb = upright.convert("RGB")
            if has_16_bit_colours:
                _require_visible(int(np.asarray(rgb).max()) * 256 + 255)
            return rgb
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        name = f"{len(source)} bytes" if isinstance(source, bytes) else printable(str(source))
        raise UnreadableImageError(f"{name}: not a readable image ({error})") from error


def read(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return uint8 (crop, crop, 3) of an image file, or of a .npy file with uint8 RGB (height, width, 3).

    Raises UnreadableImageError. A .npy of size (crop, crop) needs no Pillow.
    """
    if path.suffix != ".npy":
        return resize_and_crop(decode(path), preprocessing)
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UnreadableImageError(f"{path}: not a readable array ({error})") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UnreadableImageError(f"{path}: is not uint8 (height, width, 3)")
    if pixels.shape[:2] == (preprocessing.crop, preprocessing.crop):
        return pixels
    return resize_and_crop(as_image(pixels), preprocessing)


def as_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return uint8 RGB (height, width, 3) as a Pillow image; raises UnavailableError without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UnavailableError("resizing an array needs Pillow: pip install pillow") from error
    return Image.fromarray(pixels)


def _from_16_bits(pixels: npt.NDArray[np.integer[Any]]) -> Image.Image:
    """Scale to 8 bits; Pillow's own conversion clips instead."""
    from PIL import Image

    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels have no defined white level; convert the image to 8 or 16 bits")
    if pixels.max() > 0:
        _require_visible(int(pixels.max()))
    return Image.fromarray((pixels.astype(np.uint16) >> 8).astype(np.uint8))


def _require_visible(largest: int) -> None:
    """Raise ValueError if the largest of 16-bit values shows that the file uses fewer bits: white would be black."""
    if largest >> 8 <= MAX_BLACK:
        raise ValueError(
            f"its 16-bit pixels use only {largest.bit_length()} bits (at most {largest} of 65535), so it would be "
            "black; convert it to 8 bits, or scale its values to 0 to 65535"
        )


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Resize the shorter side and crop the centre square; return uint8 (crop, crop, 3).

    The cost is bounded: of an image longer than MAX_ASPECT_RATIO times its shorter side, only the square is resized.
    """
    width, height = image.size
    scale = preprocessing.resize / min(width, height)
    size = (max(preprocessing.resize, round(width * scale)), max(preprocessing.resize, round(height * scale)))
    x, y = (size[0] - preprocessing.crop) // 2, (size[1] - preprocessing.crop) // 2
    if max(size) > MAX_ASPECT_RATIO * preprocessing.resize:
        step_x, step_y = width / size[0], height / size[1]
        box = (x * step_x, y * step_y, (x + preprocessing.crop) * step_x, (y + preprocessing.crop) * step_y)
        return np.asarray(image.resize((preprocessing.crop, preprocessing.crop), resampling(preprocessing), box))
    if size != image.size:
        image = image.resize(size, resampling(preprocessing))
    return np.asarray(image.crop((x, y, x + preprocessing.crop, y + preprocessing.crop)))


def resampling(preprocessing: Preprocessing) -> Image.Resampling:
    """Return Pillow's constant for the interpolation."""
    from PIL import Image

    return Image.Resampling[preprocessing.interpolation.upper()]
