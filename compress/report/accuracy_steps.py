"""Top-1 after each step of a run, and the test images whose prediction changed; all compared image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from compress.verdict.statistics import Estimate, changes, top1_drop_pp

FlipKind = Literal["lost", "gained", "both wrong", "changed"]
FLIP_KINDS: tuple[FlipKind, ...] = get_args(FlipKind)


@dataclass(frozen=True)
class AccuracyStep:
    """Top-1 after one step.

    drop_pp: percentage points below the step before, negative for a gain, None for the first step. lost, gained: number
    of images whose prediction changed from right to wrong and from wrong to right.
    """

    name: str
    top1: float
    drop_pp: Estimate | None
    lost: int
    gained: int


@dataclass(frozen=True)
class Flip:
    """A test image that the last artifact of a target classifies differently from the baseline.

    index, name: of the image in the test split. label, before, after: class numbers; label is None if unknown.
    kind: "lost" or "gained" for a right prediction, "both wrong", or "changed" if the label is unknown.
    """

    index: int
    name: str
    label: int | None
    before: int
    after: int
    kind: FlipKind

    @property
    def classes(self) -> tuple[int, ...]:
        """The class numbers of the label, if known, and of both predictions."""
        return (self.before, self.after) if self.label is None else (self.label, self.before, self.after)


def accuracy_steps(
    steps: Sequence[tuple[str, Sequence[int]]], labels: Sequence[int | None], confidence: float
) -> tuple[AccuracyStep, ...]:
    """Return one record for each (name, N predicted classes), compared with the one before; labels: N classes."""
    truth = np.asarray(labels)
    records: list[AccuracyStep] = []
    before: Sequence[int] | None = None
    for name, predicted in steps:
        top1 = float(np.mean(np.asarray(predicted) == truth))
        drop = None if before is None else top1_drop_pp(before, predicted, truth, confidence)
        lost, gained = (0, 0) if before is None else changes(before, predicted, truth)
        records.append(AccuracyStep(name, top1, drop, lost, gained))
        before = predicted
    return tuple(records)


def flips(
    before: Sequence[int], after: Sequence[int], labels: Sequence[int | None], names: Sequence[str]
) -> tuple[Flip, ...]:
    """Return the images whose predicted class changed, in the order of `FLIP_KINDS`."""
    changed = [
        Flip(index, name, label, old, new, _kind(label, old, new))
        for index, (name, label, old, new) in enumerate(zip(names, labels, before, after, strict=True))
        if old != new
    ]
    return tuple(sorted(changed, key=lambda flip: FLIP_KINDS.index(flip.kind)))


def _kind(label: int | None, before: int, after: int) -> FlipKind:
    if label is None:
        return "changed"
    return "lost" if before == label else "gained" if after == label else "both wrong"
