"""Compare two results of one recipe, old and new: accuracy image by image, latency relative to float32."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from compress.images.synsets import class_names
from compress.recipe.section import Config
from compress.verdict import statistics
from compress.verdict.accepted import Accepted, Result
from compress.verdict.gate import UNKNOWN_DROP, Check, Verdict, at_least, at_most, overall
from compress.verdict.statistics import Estimate, holm, images_to_settle, mcnemar, slowdown, top1_drop_pp
from runtimes.errors import InputError

IGNORED_KEYS = ("python", "memory_gib")  # of an environment: no measurable effect on latency

_Predictions = npt.NDArray[np.int64]


class Limits(Config):
    """Limits for a new result relative to an accepted one, judged by one-sided bounds at `confidence`.

    max_top1_drop_pp: percentage points of top-1, and of the recall of each class. min_agreement: share of test images
    with unchanged prediction; used if they have no labels. max_slowdown: new / old latency at p50; each is first
    divided by that of the float32 file of its run.
    """

    max_top1_drop_pp: Annotated[float, Field(ge=0, le=100)] = 0.5
    min_agreement: Annotated[float, Field(gt=0, le=1)] = 0.98
    max_slowdown: Annotated[float, Field(ge=1, le=100)] = 1.1
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


@dataclass(frozen=True)
class ClassDrop:
    """A class whose recall fell significantly by more than the limit.

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


@dataclass(frozen=True)
class TargetComparison:
    """The comparison of one target.

    top1: old and new, None if not comparable. agreement: share of images with unchanged prediction, NaN if not
    comparable. mcnemar: one-sided probability of no drop. notes: what was not compared and why, and oddities, one line
    each.
    """

    target: str
    checks: tuple[Check, ...]
    top1: tuple[float, float] | None
    agreement: float
    images: int
    mcnemar: float | None
    classes: tuple[ClassDrop, ...]
    notes: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True)
class _Accuracy:
    """The accuracy part of a comparison; fields as in `TargetComparison`."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    top1: tuple[float, float] | None = None
    agreement: float = float("nan")
    mcnemar: float | None = None
    classes: tuple[ClassDrop, ...] = ()


def compare(old: Accepted, new: Accepted, limits: Limits) -> tuple[TargetComparison, ...]:
    """Compare the targets that both results have; raises InputError if there are none or the classes differ."""
    if old.classes != new.classes:
        raise InputError(f"the classes differ: {', '.join(old.classes[:5])}, … and {', '.join(new.classes[:5])}, …")
    before = {result.target.name: result for result in old.results}
    shared = [result for result in new.results if result.target.name in before]
    if not shared:
        raise InputError(f"no target is in both: {', '.join(before)} and "
                         f"{', '.join(result.target.name for result in new.results)}")  # fmt: skip
    return tuple(_compare_target(before[result.target.name], result, old, new, limits) for result in shared)


def verdict(comparisons: tuple[TargetComparison, ...]) -> Verdict:
    """Return the worst verdict of all targets."""
    return overall([check for comparison in comparisons for check in comparison.checks])


def _compare_target(before: Result, after: Result, old: Accepted, new: Accepted, limits: Limits) -> TargetComparison:
    if before.images != after.images or old.labels != new.labels:
        unknown = Check("max_top1_drop_pp", limits.max_top1_drop_pp, UNKNOWN_DROP, "inconclusive")
        accuracy = _Accuracy(
            (unknown,), ("the test images differ: accuracy is not compared; accept a run on the same images",)
        )
    elif None in new.labels:
        same = statistics.agreement(before.predicted, after.predicted, limits.confidence)
        accuracy = _Accuracy((at_least("min_agreement", same, limits.min_agreement),), agreement=same.value)
    else:
        accuracy = _compare_accuracy(before, after, new, limits)
    latency_checks, latency_notes = _compare_latency(before, after, limits)
    checks = (*accuracy.checks, *latency_checks)
    return TargetComparison(
        target=after.target.name,
        checks=checks,
        top1=accuracy.top1,
        agreement=accuracy.agreement,
        images=len(new.labels),
        mcnemar=accuracy.mcnemar,
        classes=accuracy.classes,
        notes=(*accuracy.notes, *latency_notes),
        verdict=overall(list(checks)),
    )


def _compare_accuracy(before: Result, after: Result, new: Accepted, limits: Limits) -> _Accuracy:
    """Compare predictions on labelled images."""
    old_classes, new_classes = np.asarray(before.predicted), np.asarray(after.predicted)
    labels = np.asarray(new.labels)
    drop = top1_drop_pp(old_classes, new_classes, labels, limits.confidence)
    check = at_most("max_top1_drop_pp", drop, limits.max_top1_drop_pp)
    drops = _class_drops(old_classes, new_classes, labels, new.classes, limits)
    collapsed = (Check("class_recall", limits.max_top1_drop_pp, _worst(drops), "regression"),) if drops else ()
    return _Accuracy(
        checks=(check, *collapsed),
        notes=tuple(_accuracy_notes(drop, len(labels), check, limits)),
        top1=(float(np.mean(old_classes == labels)), float(np.mean(new_classes == labels))),
        agreement=float(np.mean(old_classes == new_classes)),
        mcnemar=mcnemar(*statistics.changes(old_classes, new_classes, labels)),
        classes=drops,
    )


def _compare_latency(before: Result, after: Result, limits: Limits) -> tuple[list[Check], list[str]]:
    """Return the check of latency, none if the environments differ, and notes."""
    different = _differences(before, after)
    if different:
        return [], [f"latency is not compared, the environments differ: {'; '.join(different)}"]
    notes = []
    if before.reference_bytes != after.reference_bytes:
        notes.append("the float32 networks differ: latency is compared in milliseconds, not relative to float32")
    return [at_most("max_slowdown", _slowdown(before, after, limits), limits.max_slowdown)], notes


def _slowdown(before: Result, after: Result, limits: Limits) -> Estimate:
    """Return new / old latency, each relative to float32 so that a machine-wide slowdown is not reported.

    If the float32 networks differ, milliseconds are compared directly.
    """
    same = before.reference_bytes == after.reference_bytes
    old, new = (
        (result.reference_ms if same else np.ones_like(result.latency_ms), result.latency_ms)
        for result in (before, after)
    )
    return slowdown(old, new, limits.confidence, (before.sessions, after.sessions))


def _accuracy_notes(drop: Estimate, images: int, check: Check, limits: Limits) -> list[str]:
    notes = []
    if check.verdict == "inconclusive":
        needed = images_to_settle(drop, images, limits.max_top1_drop_pp, limits.confidence)
        advice = f"use about {needed} images" if needed else "the drop is exactly at the limit"
        notes.append(f"{images} images are too few to tell the drop from the limit; {advice}")
    if -drop.high > limits.max_top1_drop_pp:
        notes.append(
            f"implausible: top-1 rose by {-drop.value:.2f} points; was the network trained on the test images?"
        )
    return notes


def _class_drops(
    before: _Predictions, after: _Predictions, labels: _Predictions, classes: tuple[str, ...], limits: Limits
) -> tuple[ClassDrop, ...]:
    """Return the classes that lost significantly more recall than the limit, tested with Holm's correction."""
    names = class_names(classes)
    present = [label for label in range(len(classes)) if np.any(labels == label)]
    changed = [
        statistics.changes(before[labels == label], after[labels == label], labels[labels == label])
        for label in present
    ]
    probabilities = holm([mcnemar(lost, gained) for lost, gained in changed])
    drops = [
        ClassDrop(names[label], int(np.sum(labels == label)), lost, gained, probability)
        for label, (lost, gained), probability in zip(present, changed, probabilities, strict=True)
    ]
    significance = 1 - limits.confidence
    return tuple(drop for drop in drops if drop.probability <= significance and drop.drop_pp > limits.max_top1_drop_pp)


def _worst(drops: tuple[ClassDrop, ...]) -> Estimate:
    value = max(drop.drop_pp for drop in drops)
    return Estimate(value, value, value)


def _differences(before: Result, after: Result) -> list[str]:
    """Return the settings that latency depends on and that differ, one text each."""
    different = []
    for section, old, new in (
        ("target", asdict(before.target), asdict(after.target)),
        ("environment", before.environment, after.environment),
    ):
        for key in sorted({*old, *new} - {*IGNORED_KEYS}):
            if old.get(key) != new.get(key):
                different.append(f"{section}.{key} {old.get(key)} and {new.get(key)}")
    return different
