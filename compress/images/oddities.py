"""Name what is odd about an image that can be read: unused frames, few of 16 bits, a single colour."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable

import numpy as np
from PIL import Image

from runtimes.images import UNREADABLE

SEVERAL_FRAMES = "images with several frames, of which only the first is used"
NARROW = (
    "16-bit images that use a quarter of the range or less (99 % of the pixels), which makes them dark or flat; scale "
    "them to 0 to 65535"
)
UNIFORM = "images that are black or of nearly one colour when read as RGB"
MAX_NARROW = 63  # in 8 bits: largest value, or range of values, of 99 % of the pixels
MAX_UNIFORM = 16  # in 8 bits: range of values of each channel; a file with the values 0 and 1 looks black
OUTLIERS = 0.01  # share of pixels, for example defective ones or text in the image


def oddity(encoded: bytes, decoded: Image.Image) -> str | None:
    """Return what is odd about an image, None if nothing is. decoded: in RGB."""
    with Image.open(io.BytesIO(encoded)) as image:
        has_16_bits = image.mode.startswith("I") or ";16" in repr(image.tile)
        if has_16_bits and _is_narrow(decoded):
            return NARROW
        if image.format != "MPO" and _has_frames(image):  # phones add a preview or a depth map to an MPO
            return SEVERAL_FRAMES
    ranges = np.asarray(decoded.getextrema())
    return UNIFORM if (ranges[:, 1] - ranges[:, 0]).max() <= MAX_UNIFORM else None


def _has_frames(image: Image.Image) -> bool:
    """Return whether a file has more than one frame, also if the others are damaged."""
    try:
        return getattr(image, "n_frames", 1) > 1
    except UNREADABLE:
        return True


def _is_narrow(decoded: Image.Image) -> bool:
    """Return whether nearly all pixels are dark, or nearly equal; not for an image that is black throughout."""
    counts = np.asarray(decoded.convert("L").histogram())
    if not counts[1:].any():
        return False
    shares = np.cumsum(counts) / counts.sum()
    low, high = np.searchsorted(shares, (OUTLIERS, 1 - OUTLIERS)).tolist()
    return bool(high - low <= MAX_NARROW)


def lines(oddities: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return one line for each kind of (name, oddity), with its number and an example."""
    pairs = list(oddities)
    examples = {kind: name for name, kind in reversed(pairs)}
    counts = Counter(kind for _, kind in pairs)
    return tuple(f"{kind}: {count}, for example {examples[kind]}" for kind, count in counts.items())
