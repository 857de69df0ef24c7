"""What every step of one run needs: the recipe, its folder, the data, and results by the content of all inputs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from compress.images import samples as dataset
from compress.images.samples import Data, Sample
from compress.pipeline.run_folder import RunFolder
from compress.process.console import Terminal
from compress.process.tracking import Track
from compress.recipe.recipe import Recipe
from runtimes import evalset
from runtimes.artifact import Artifact
from runtimes.evalset import EvalSet

PARITY_IMAGES = 64
TRAINING_PACKAGES = ("torch", "torchvision", "timm")


@dataclass(frozen=True)
class Work:
    """What every step of one run needs."""

    recipe: Recipe
    folder: RunFolder
    terminal: Terminal
    data: Data
    data_key: str
    track: Track

    def step(self, name: str, inputs: Any, packages: tuple[str, ...], make: Any, together: bool = False) -> Path:
        """Do `make(work, folder)` unless the results for these inputs, data and seed are there; return their folder.

        together: all processes of torchrun do it, not the first alone.
        """
        everything = to_jsonable_python([inputs, self.data_key, self.recipe.seed])
        return self.folder.step(name, everything, packages, partial(make, self), together)

    def prepared(self, split: str) -> EvalSet:
        """Return the images of a split, resized and cropped; calibration images are drawn when first asked for."""
        count = self.recipe.quantize.calibration_images if self.recipe.quantize else PARITY_IMAGES
        inputs = [self.recipe.preprocessing, count if split == "calibration" else None]
        return _opened(self.step(f"images-{split}", inputs, ("pillow",), partial(_prepare_images, split=split)))

    def training_images(self, split: str) -> EvalSet:
        """Return the images of train or val; a stage gets no others."""
        _require_training_split(split)
        return self.prepared(split)

    def some_training_images(self, split: str, count: int) -> EvalSet:
        """Return at most `count` images of train or val, spread over all."""
        _require_training_split(split)
        samples = self.data.split(split)
        if count >= len(samples):
            return self.prepared(split)
        make = partial(_prepare_images, split=split, count=count)
        return _opened(self.step(f"images-{split}-{count}", [self.recipe.preprocessing, count], ("pillow",), make))


@functools.cache
def _opened(folder: Path) -> EvalSet:
    """Check an evaluation set's bytes once: ImageNet's are gigabytes."""
    return evalset.load(folder)


def origin(artifact: Artifact) -> list[str]:
    """Return what identifies an artifact: its bytes, and the step that made it and its manifest."""
    return [artifact.manifest.sha256, artifact.path.parent.name]


def _require_training_split(split: str) -> None:
    if split not in ("train", "val"):
        raise ValueError(f"a stage may not read the split {split}")


def _prepare_images(work: Work, folder: Path, split: str, count: int | None = None) -> None:
    samples: tuple[Sample, ...] = work.data.split(split)
    if count is not None:
        samples = tuple(samples[index] for index in evalset.spread(len(samples), count))
    if split == "calibration":
        count = work.recipe.quantize.calibration_images if work.recipe.quantize else PARITY_IMAGES
        samples = dataset.draw_calibration(work.data, count, work.recipe.seed)
    dataset.write_evalset(
        folder, samples, work.data.classes, work.recipe.preprocessing, work.terminal, f"prepare {split} images"
    )  # fmt: skip
