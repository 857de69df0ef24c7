"""Decode image files to upright uint8 pixels with Pillow; resize and crop them for a network."""

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
MODES = {"rgb": "RGB", "bgr": "RGB", "grey": "L", "rgba": "RGBA"}  # of Pillow, by the channels of a preprocessing
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


def decode(source: Source, with_alpha: bool = False) -> Image.Image:
    """Decode to RGB, or to RGBA, rotated by the EXIF orientation.

    Raises UnreadableImageError for a damaged file, UnavailableError without Pillow.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise UnavailableError("decoding images needs Pillow: pip install pillow") from error
    mode = "RGBA" if with_alpha else "RGB"
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(content(source))) as image:
            has_16_bit_colours = ";16" in repr(image.tile)  # Pillow itself reduces them to 8 bits
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                return _from_16_bits(np.asarray(upright)).convert(mode)
            if upright.mode == "F":
                raise ValueError("floating-point pixels have no defined white level; convert the image to 8 or 16 bits")
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            decoded = upright.convert(mode)
            if has_16_bit_colours:
                _require_visible(int(np.asarray(decoded)[..., :3].max()) * 256 + 255)
            return decoded
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        name = f"{len(source)} bytes" if isinstance(source, bytes) else printable(str(source))
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else error  # which repeats the path
        raise UnreadableImageError(f"{name}: not a readable image ({reason})") from error


def read(source: Source, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return the uint8 (height, width, channels) that a preprocessing makes of an image file, or of a .npy file.

    A .npy file holds uint8 (height, width, channels): RGB, RGB or one channel for `grey`, RGBA for `rgba`, and any
    channels for `array`, which takes no other files. Raises UnreadableImageError. A .npy file of the right size and
    channels needs no Pillow.
    """
    if isinstance(source, Path) and source.suffix == ".npy":
        return _prepared_array(_read_array(source, preprocessing), preprocessing)
    if preprocessing.channels == "array":
        raise UnreadableImageError(f"{printable(str(source))}: is no .npy file; a network with "
                                   f"{preprocessing.channel_count} channels takes arrays")  # fmt: skip
    return resize_and_crop(decode(source, preprocessing.channels == "rgba"), preprocessing)


def _read_array(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return the array of a .npy file, with an axis of channels."""
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UnreadableImageError(f"{path}: not a readable array ({error})") from error
    counts = {"grey": (1, 3), "bgr": (3,)}.get(preprocessing.channels, (preprocessing.channel_count,))
    if isinstance(pixels, np.ndarray) and pixels.ndim == 2:
        pixels = pixels[..., None]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] not in {(n,) for n in counts}:
        raise UnreadableImageError(f"{path}: is not uint8 (height, width, {' or '.join(map(str, counts))})")
    return pixels


def _prepared_array(pixels: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    if preprocessing.channels == "array":
        parts = [as_image(pixels[..., channel]) for channel in range(pixels.shape[2])]
        return np.concatenate([resize_and_crop(part, preprocessing) for part in parts], axis=2)
    if pixels.shape != preprocessing.image_shape:
        return resize_and_crop(as_image(pixels), preprocessing)
    return pixels[..., ::-1] if preprocessing.channels == "bgr" else pixels


def as_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return uint8 (height, width, channels) of 1, 3 or 4 channels, or (height, width), as a Pillow image.

    Raises UnavailableError without Pillow.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UnavailableError("resizing an array needs Pillow: pip install pillow") from error
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


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
    """Resize an image, crop its centre, and return uint8 (height, width, channels).

    The cost is bounded: of an image longer than MAX_ASPECT_RATIO times its shorter side, only the crop is resized.
    """
    if (mode := MODES.get(preprocessing.channels, image.mode)) != image.mode:
        image = image.convert(mode)
    pixels = np.asarray(_resized_and_cropped(image, preprocessing))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return pixels[..., ::-1] if preprocessing.channels == "bgr" else pixels


def _resized_and_cropped(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    rows, columns = preprocessing.resized
    width, height = size = preprocessing.resized_size(*image.size)
    left, top = (width - preprocessing.width) // 2, (height - preprocessing.height) // 2
    box = left, top, left + preprocessing.width, top + preprocessing.height
    if width > MAX_ASPECT_RATIO * columns or height > MAX_ASPECT_RATIO * rows:
        step_x, step_y = image.width / width, image.height / height
        part = box[0] * step_x, box[1] * step_y, box[2] * step_x, box[3] * step_y
        return image.resize((preprocessing.width, preprocessing.height), resampling(preprocessing), part)
    if size != image.size:
        image = image.resize(size, resampling(preprocessing))
    return image.crop(box)


def resampling(preprocessing: Preprocessing) -> Image.Resampling:
    """Return Pillow's constant for the interpolation."""
    from PIL import Image

    return Image.Resampling[preprocessing.interpolation.upper()]
