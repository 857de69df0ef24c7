"""Fast decoding of plain JPEGs with simplejpeg; Pillow decodes all other images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EXIF, START_OF_SCAN = 0xE1, 0xDA
MOST_REDUCED = 8  # decoding at 1/8 reads the mean of each 8 x 8 block, the fastest scale


def plain_size(encoded: bytes) -> tuple[int, int] | None:
    """Return the width and height of a grey or YCbCr JPEG without EXIF (which may rotate it); None for other images."""
    import simplejpeg

    if not simplejpeg.is_jpeg(encoded) or _has_exif(encoded):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None  # Pillow decides whether the image is readable and names the reason
    return None if colours in ("CMYK", "YCCK") else (width, height)


def decode(encoded: bytes, **options: int) -> npt.NDArray[np.uint8]:
    """Return the pixels, uint8 (height, width, 3). options: of simplejpeg.decode_jpeg.

    Equal to Pillow's pixels except at edges of subsampled colour channels, which are not smoothed. Raises ValueError
    also for some images that Pillow decodes.
    """
    import simplejpeg

    pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, fastupsample=True, **options)
    return pixels


def is_whole(encoded: bytes) -> bool:
    """Return whether an image is a plain JPEG that decodes without an error; if not, Pillow may still decode it."""
    size = plain_size(encoded)
    if size is None:
        return False
    try:
        decode(encoded, min_width=1, min_height=1, min_factor=MOST_REDUCED)
    except ValueError:
        return False
    return True


def _has_exif(encoded: bytes) -> bool:
    """Return whether one of the segments before the pixels is EXIF."""
    offset = 2
    while offset + 4 <= len(encoded) and encoded[offset] == 0xFF and encoded[offset + 1] != START_OF_SCAN:
        if encoded[offset + 1] == EXIF:
            return True
        offset += 2 + int.from_bytes(encoded[offset + 2 : offset + 4], "big")
    return False
