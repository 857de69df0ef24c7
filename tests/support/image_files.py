"""Encoded images of any size and mode."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encoded_image(size: tuple[int, int], mode: str, file_format: str, seed: int = 0) -> bytes:
    """Return the bytes of a random image. size: (width, height)."""
    width, height = size
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
    else:
        bands = len(Image.new(mode, (1, 1)).getbands())
        pixels = rng.integers(0, 256, (height, width, bands), np.uint8)
        image = Image.frombytes(mode, size, pixels.tobytes())
    if mode == "P":
        image.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
    stream = io.BytesIO()
    image.save(stream, file_format)
    return stream.getvalue()
