"""Where the points went: top-1 of every network on the way to what ships, each against the one before, in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.verdict.statistics import Estimate, changes, top1_drop_pp

KINDS = ("lost", "won", "both wrong", "changed")


@dataclass(frozen=True)
class Fall:
    """One step. drop_pp: against the step before, None for the first. lost, won: right answers that went and came."""

    name: str
    top1: float
    drop_pp: Estimate | None
    lost: int
    won: int


@dataclass(frozen=True)
class Flip:
    """A test image that what ships answers otherwise than the baseline does; classes are numbers.

    label: None where nobody knows.
    """

    index: int
    label: int | None
    before: int
    after: int

    @property
    def kind(self) -> str:
        """Return which of `KINDS` it is: a right answer lost or won, both wrong, or changed where no label is known."""
        if self.label is None:
            return "changed"
        return "lost" if self.before == self.label else "won" if self.after == self.label else "both wrong"


def falls(
    steps: Sequence[tuple[str, Sequence[int]]], labels: Sequence[int | None], confidence: float
) -> tuple[Fall, ...]:
    """Return a fall for each (name, predicted classes of the N images); labels: their true classes."""
    truth = np.asarray(labels)
    found: list[Fall] = []
    before: Sequence[int] | None = None
    for name, predicted in steps:
        top1 = float(np.mean(np.asarray(predicted) == truth))
        drop = None if before is None else top1_drop_pp(before, predicted, truth, confidence)
        lost, won = (0, 0) if before is None else changes(before, predicted, truth)
        found.append(Fall(name, top1, drop, lost, won))
        before = predicted
    return tuple(found)


def flips(before: Sequence[int], after: Sequence[int], labels: Sequence[int | None]) -> list[Flip]:
    """Return the images whose answer changed: those lost first, then those won, then those wrong both times."""
    changed = [
        Flip(index, label, one, other)
        for index, (label, one, other) in enumerate(zip(labels, before, after, strict=True))
        if one != other
    ]
    return sorted(changed, key=lambda flip: KINDS.index(flip.kind))
