"""Classes whose recall fell, although the mean over all images may be within its limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.images.synsets import class_names
from compress.verdict.statistics import Estimate, changes, drop_pp, holm, mcnemar, testable

NAMES_SHOWN = 3


@dataclass(frozen=True)
class ClassDrop:
    """A class whose recall fell by more than the limit.

    lost, gained: images whose prediction became wrong and right. probability: McNemar's, corrected for the number of
    classes.
    """

    name: str
    images: int
    lost: int
    gained: int
    probability: float

    @property
    def drop_pp(self) -> float:
        """The percentage points by which the recall fell."""
        return 100 * (self.lost - self.gained) / self.images

    @property
    def is_half(self) -> bool:
        """True if at least half of the images are lost: two or more, or the only one."""
        lost = self.lost - self.gained
        return 2 * lost >= self.images and (lost >= 2 or self.images == 1)

    def estimate(self, confidence: float) -> Estimate:
        """Return the drop of the recall in percentage points with its one-sided bounds."""
        return drop_pp(self.lost, self.gained, self.images, confidence)

    def line(self) -> str:
        """Return one line for people."""
        return (f"class '{self.name}' collapsed: {self.lost} of {self.images} images lost, {self.gained} gained, "
                f"p = {self.probability:.2g} (corrected for the number of classes)")  # fmt: skip


@dataclass(frozen=True)
class ClassDrops:
    """Classes that lost more recall than the limit.

    collapsed: significantly. unclear: not significantly, but half of the images, or by bounds that are approximate.
    """

    collapsed: tuple[ClassDrop, ...]
    unclear: tuple[ClassDrop, ...]


def class_drops(
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    limit_pp: float,
    confidence: float,
) -> ClassDrops:
    """Return the classes whose recall fell by more than the limit; predicted classes and labels, (N,) each.

    A drop is significant by McNemar's exact test, and its bound is beyond the limit. Classes with too few changed
    predictions for any significance are not tested (Tarone), and the others are corrected for their number (Holm).
    """
    names, significance = class_names(classes), 1 - confidence
    present = [label for label in range(len(classes)) if np.any(labels == label)]
    changed = [changes(before[labels == label], after[labels == label], labels[labels == label]) for label in present]
    tested = testable([lost + gained for lost, gained in changed], significance)
    corrected = dict(zip(tested, holm([mcnemar(*changed[index]) for index in tested]), strict=True))
    drops = [
        ClassDrop(names[label], int(np.sum(labels == label)), *changed[index], corrected.get(index, 1.0))
        for index, label in enumerate(present)
    ]
    collapsed = tuple(
        drop
        for drop in drops
        if drop.probability <= significance and drop.estimate(1 - significance / len(tested)).low > limit_pp
    )
    unclear = tuple(
        drop
        for drop in drops
        if drop not in collapsed
        and drop.drop_pp > limit_pp
        and (drop.is_half or drop.estimate(1 - significance / len(drops)).low > limit_pp)
    )
    return ClassDrops(collapsed, unclear)


def too_small(labels: npt.NDArray[np.int64], classes: tuple[str, ...], confidence: float) -> str | None:
    """Return a line that names the classes with so few test images that no loss is significant, None without any."""
    needed = next(count for count in range(1, 64) if mcnemar(count, 0) <= max(1 - confidence, 2**-60))
    small = [label for label in range(len(classes)) if np.sum(labels == label) < needed]
    if not small:
        return None
    return (f"fewer than {needed} test images: {_listed(small, classes)}; a loss in so small a class can't be shown; "
            "add test images")  # fmt: skip


def never_right(before: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], classes: tuple[str, ...]) -> str | None:
    """Return a line that names the classes of which the reference gets no test image right, None without any."""
    wrong = [label for label in np.unique(labels).tolist() if not np.any(before[labels == label] == label)]
    if not wrong:
        return None
    return (f"the reference gets no test image right of: {_listed(wrong, classes)}; such a class has nothing to lose; "
            "check its training and its labels")  # fmt: skip


def _listed(labels: list[int], classes: tuple[str, ...]) -> str:
    """Return the names of the first classes and the number of the others."""
    names = class_names(classes)
    more = f" and {len(labels) - NAMES_SHOWN} more" if len(labels) > NAMES_SHOWN else ""
    return f"{', '.join(names[label] for label in labels[:NAMES_SHOWN])}{more}"
