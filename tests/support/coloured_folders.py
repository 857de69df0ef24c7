"""Folders of class folders whose classes differ in colour."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image


def make_classes(
    root: Path, counts: dict[str, int], side: int = 32, mode: str = "RGB", width: int | None = None
) -> Path:
    """Write `root/CLASS/N.png`: noise around one colour for each class. Return root. width: by default the side."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        colour = 255 * np.asarray(colorsys.hsv_to_rgb(label / len(counts), 0.8, 0.7))
        for index in range(count):
            noise = np.random.default_rng((label, index)).normal(0, 40, (side, width or side, 3))
            pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{index}.png")
    return root
