"""What simplejpeg may be asked: plain JPEGs, for training and to see whether they are whole; Pillow's answer counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EXIF, START_OF_SCAN = 0xE1, 0xDA
MOST_REDUCED = 8  # a JPEG's blocks are 8 x 8 pixels: their means are the cheapest picture of it


def plain_size(encoded: bytes) -> tuple[int, int] | None:
    """Return the width and height of a grey or YCbCr JPEG without EXIF, which may turn it; None for all else."""
    import simplejpeg

    if not simplejpeg.is_jpeg(encoded) or _has_exif(encoded):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None  # Pillow decides whether it can be read, and tells why not
    return None if colours in ("CMYK", "YCCK") else (width, height)


def decode(encoded: bytes, **options: int) -> npt.NDArray[np.uint8]:
    """Return uint8 (height, width, 3); options: those of simplejpeg. Raises ValueError, for less than Pillow does.

    Pillow's pixels but for colours that were stored at half the resolution, whose edges are not smoothed.
    """
    import simplejpeg

    pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, fastupsample=True, **options)
    return pixels


def is_whole(encoded: bytes) -> bool:
    """Whether it is a plain JPEG that decodes without a warning; the rest is Pillow's to judge."""
    size = plain_size(encoded)
    if size is None:
        return False
    try:
        decode(encoded, min_width=1, min_height=1, min_factor=MOST_REDUCED)
    except ValueError:
        return False
    return True


def _has_exif(encoded: bytes) -> bool:
    """Walk through the segments in front of the pixels."""
    place = 2
    while place + 4 <= len(encoded) and encoded[place] == 0xFF and encoded[place + 1] != START_OF_SCAN:
        if encoded[place + 1] == EXIF:
            return True
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    return False
