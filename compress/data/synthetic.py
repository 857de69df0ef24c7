"""Small synthetic images of coloured stripes, one direction and colour per class; for the smoke recipe and tests."""

from __future__ import annotations

import io
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from compress.images.samples import Data, Sample, stratified_split
from compress.recipe.section import Config as Section


class Config(Section):
    """Synthetic stripes.

    classes: number of classes.
    images_per_class: number of images of each class, over all splits.
    size: side in pixels.
    noise: standard deviation in grey levels.
    seed: of the images and the split.
    """

    name: Literal["synthetic"] = "synthetic"
    classes: Annotated[int, Field(ge=2, le=10_000)] = 3
    images_per_class: Annotated[int, Field(ge=3, le=10_000)] = 40
    size: Annotated[int, Field(ge=8, le=512)] = 32
    noise: Annotated[float, Field(ge=0, le=255)] = 24
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


def load(config: Config) -> Data:
    """Draw the images, as PNG bytes in memory: 60 % train, 15 % val, 25 % test."""
    rng = np.random.default_rng(config.seed)
    classes = tuple(f"stripes-{label:03d}" for label in range(config.classes))
    samples = [
        (Sample(f"{classes[label]}/{index:04d}.png", _image(config, label, rng), label), None)
        for label in range(config.classes)
        for index in range(config.images_per_class)
    ]
    test, val, train = stratified_split(samples, (0.25, 0.15), classes, config.seed)
    return Data(classes, train, val, test)


def _image(config: Config, label: int, rng: np.random.Generator) -> bytes:
    angle = np.pi * label / config.classes
    row, column = np.mgrid[: config.size, : config.size]
    wave = np.sin((row * np.sin(angle) + column * np.cos(angle)) * rng.uniform(0.5, 0.9) + rng.uniform(0, 6))
    tint = np.asarray([np.cos(2 * angle), np.sin(2 * angle), 0.5])
    pixels = 128 + 40 * (1 + wave[..., None]) * tint + rng.normal(0, config.noise, (config.size, config.size, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
