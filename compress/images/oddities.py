"""Name what is odd about an image that can be read: frames that are not used, 16 bits of which few are used."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable

import numpy as np
from PIL import Image

SEVERAL_FRAMES = "images with several frames, of which only the first is used"
DARK = "16-bit images that use at most 14 bits, which makes them dark; scale them if their white is below 65535"
MAX_DARK = 63  # in 8 bits, of 14-bit pixels in a 16-bit file


def oddity(encoded: bytes, decoded: Image.Image) -> str | None:
    """Return what is odd about an image, None if nothing is. decoded: in RGB."""
    with Image.open(io.BytesIO(encoded)) as image:
        has_16_bits = image.mode.startswith("I") or ";16" in repr(image.tile)
        if has_16_bits and 0 < np.asarray(decoded).max() <= MAX_DARK:
            return DARK
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # phones add a preview or a depth map to an MPO
            return SEVERAL_FRAMES
    return None


def lines(oddities: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return one line for each kind of (name, oddity), with its number and an example."""
    pairs = list(oddities)
    examples = {kind: name for name, kind in reversed(pairs)}
    counts = Counter(kind for _, kind in pairs)
    return tuple(f"{kind}: {count}, for example {examples[kind]}" for kind, count in counts.items())
