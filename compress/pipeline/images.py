"""The images of a run: a data set with its fingerprint, and its splits, resized and cropped when first needed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from compress.images import samples
from compress.images.samples import Data, Sample
from compress.pipeline.identity import identity
from compress.pipeline.steps import Step, Steps
from compress.recipe import plugins
from compress.recipe.plugins import Origin
from compress.recipe.section import Config
from runtimes import evalset
from runtimes.evalset import EvalSet
from runtimes.files import JsonValue
from runtimes.preprocessing import Preprocessing


@dataclass(frozen=True)
class LoadedData:
    """A data set with its fingerprint, which is computed once: ImageNet has a million files.

    code: of the plug-in that loaded it, None for one of the toolkit.
    """

    data: Data
    fingerprint: str
    code: Origin | None = None

    @classmethod
    def of(cls, data: Data, section: Config | None = None) -> LoadedData:
        """Compute the fingerprint. section: the recipe's section `data`, None for data that no plug-in loaded."""
        return cls(data, data.fingerprint(), plugins.origin(section) if section else None)

    def identity(self) -> JsonValue:
        """Return the fingerprint, with the code of a plug-in that is not built in."""
        return self.fingerprint if self.code is None else [self.fingerprint, identity(self.code)]


@dataclass(frozen=True)
class Selection:
    """A choice of images of a split. count: at most so many, None for all. seed: of a draw, None for evenly spaced."""

    split: str
    count: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class SplitImages:
    """Images of one split; `load` prepares them on first use."""

    steps: Steps
    source: LoadedData
    preprocessing: Preprocessing
    selection: Selection

    def identity(self) -> JsonValue:
        """Return what decides the pixels."""
        return identity([self.source, self.preprocessing, self.selection])

    def at_most(self, count: int) -> SplitImages:
        """Return at most `count` of the images, spread evenly, without preparing the others."""
        if count >= len(self.source.data.split(self.selection.split)):
            return self
        return replace(self, selection=replace(self.selection, count=count))

    def load(self) -> EvalSet:
        """Return the images as uint8 `(N, H, W, C)` with labels, names and classes."""
        return _opened(self.prepared())

    def prepared(self) -> Path:
        """Return the folder with the images, resized and cropped."""
        name = f"images-{self.selection.split}"
        name += f"-{self.selection.count}" if self.selection.count and self.selection.seed is None else ""
        return self.steps.run(
            prepare_images, name, source=self.source, preprocessing=self.preprocessing, selection=self.selection
        )


@dataclass(frozen=True)
class RunImages:
    """All images of a run. calibration_count: how many images calibration draws."""

    steps: Steps
    source: LoadedData
    preprocessing: Preprocessing
    seed: int
    calibration_count: int

    @property
    def data(self) -> Data:
        """The data set."""
        return self.source.data

    def of(self, split: str) -> SplitImages:
        """Return the images of train, val or test."""
        return self._select(Selection(split))

    def calibration(self) -> SplitImages:
        """Return the images to calibrate on: a seeded draw from the calibration folder, or else from train."""
        return self._select(Selection("calibration", self.calibration_count, self.seed))

    def _select(self, selection: Selection) -> SplitImages:
        return SplitImages(self.steps, self.source, self.preprocessing, selection)


@functools.cache
def _opened(folder: Path) -> EvalSet:
    """Open an evaluation set and check its bytes once: ImageNet's are gigabytes."""
    return evalset.load(folder)


def prepare_images(step: Step, source: LoadedData, preprocessing: Preprocessing, selection: Selection) -> None:
    """Write the selected images of a split into the step's folder, as an evaluation set."""
    data = source.data
    samples.write_evalset(
        step.folder, _selected(data, selection), data.classes, preprocessing, step.console,
        f"prepare {selection.split} images",
    )  # fmt: skip


def _selected(data: Data, selection: Selection) -> tuple[Sample, ...]:
    if selection.seed is not None:
        assert selection.count is not None
        return samples.draw_calibration(data, selection.count, selection.seed)
    members = data.split(selection.split)
    if selection.count is None:
        return members
    return tuple(members[index] for index in evalset.spread(len(members), selection.count))
