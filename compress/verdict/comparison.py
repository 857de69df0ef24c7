"""Compare two results of one recipe, old and new: accuracy image by image, latency relative to float32."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from compress.verdict import accuracy, metrics, statistics
from compress.verdict.accepted import Accepted, Result
from compress.verdict.accuracy import UNKNOWN_DROP, AccuracyLimits, Judgement, Predictions
from compress.verdict.checks import Check, Verdict, at_least, at_most, overall
from compress.verdict.classes import ClassDrop
from compress.verdict.metrics import Metric
from compress.verdict.statistics import Estimate, slowdown
from runtimes.errors import InputError

IGNORED_KEYS = ("python", "memory_gib")  # of an environment: no measurable effect on latency


class Limits(AccuracyLimits):
    """Limits for a new result relative to an accepted one, judged by one-sided bounds at `confidence`.

    max_drop_pp: percentage points of the metric, and of the recall of each class. min_recall: by class. min_agreement:
    share of test images with unchanged prediction; used if they have no labels. max_slowdown: new / old latency at p50;
    each is first divided by that of the float32 file of its run. None: latency is not compared.
    """

    max_drop_pp: Annotated[float, Field(ge=0, le=100)] = 0.5
    min_agreement: Annotated[float, Field(gt=0, le=1)] = 0.98
    max_slowdown: Annotated[float, Field(ge=1, le=100)] | None = 1.1
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


@dataclass(frozen=True)
class TargetComparison:
    """The comparison of one target.

    metric: of the limit on the drop. metric_values, top1: old and new, None if not comparable. agreement: share of
    images with unchanged prediction, None if not comparable. mcnemar: one-sided probability of no drop. notes: what was
    not compared and why, and oddities, one line each. verdict: None if the target is new.
    """

    target: str
    checks: tuple[Check, ...]
    metric: Metric
    images: int
    verdict: Verdict | None
    notes: tuple[str, ...] = ()
    top1: tuple[float, float] | None = None
    metric_values: tuple[float, float] | None = None
    agreement: float | None = None
    mcnemar: float | None = None
    classes: tuple[ClassDrop, ...] = ()


def _composed(names: tuple[str, ...]) -> list[str]:
    """Return names in NFC: results of earlier versions hold those of macOS decomposed."""
    return [unicodedata.normalize("NFC", name) for name in names]


def compare(old: Accepted, new: Accepted, limits: Limits) -> tuple[TargetComparison, ...]:
    """Compare the targets of two results; one that only the old result has is a regression.

    Raises InputError if no target is in both, the classes differ, or a limit needs labels or classes that are missing.
    """
    if _composed(old.classes) != _composed(new.classes):
        raise InputError(f"the classes differ: {', '.join(old.classes[:5])}, … and {', '.join(new.classes[:5])}, …")
    before = {result.target.name: result for result in old.results}
    after = {result.target.name: result for result in new.results}
    if not before.keys() & after.keys():
        raise InputError(f"no target is in both: {', '.join(before)} and {', '.join(after)}")
    labels = None if None in new.labels else np.asarray(new.labels, np.int64)
    accuracy.refuse_unknown(limits.model_copy(update={"max_drop_pp": None}), labels, new.classes)
    return (
        *(_missing(name, limits) for name in before if name not in after),
        *(_compare_target(before[name], result, old, new, limits) for name, result in after.items() if name in before),
        *(_added(name, limits) for name in after if name not in before),
    )


def verdict(comparisons: tuple[TargetComparison, ...]) -> Verdict:
    """Return the worst verdict of all targets."""
    return overall([check for comparison in comparisons for check in comparison.checks])


def _missing(name: str, limits: Limits) -> TargetComparison:
    note = "the accepted result has this target, the new one lacks it; measure it, or accept a run without it"
    return TargetComparison(
        name, (at_least("target_measured", Estimate(0.0, 0.0, 0.0), 1.0),), limits.metric, 0, "regression", (note,)
    )


def _added(name: str, limits: Limits) -> TargetComparison:
    note = "not compared: the accepted result lacks this target; accept a run that has it"
    return TargetComparison(name, (), limits.metric, 0, None, (note,))


def _compare_target(before: Result, after: Result, old: Accepted, new: Accepted, limits: Limits) -> TargetComparison:
    comparable = before.images == after.images and old.labels == new.labels
    predictions = Predictions(
        before=np.asarray(before.predicted) if comparable else None,
        after=np.asarray(after.predicted),
        labels=None if None in new.labels else np.asarray(new.labels, np.int64),
        classes=new.classes,
    )
    judged = _judge(before, after, predictions, limits)
    latency_checks, latency_notes = _compare_latency(before, after, limits)
    checks = (*judged.checks, *latency_checks)
    same = None if predictions.before is None else predictions.before == predictions.after
    return TargetComparison(
        target=after.target.name,
        checks=checks,
        metric=limits.metric,
        images=len(new.labels),
        verdict=overall(list(checks)),
        notes=(*judged.notes, *latency_notes),
        top1=_old_and_new("top1", predictions),
        metric_values=_old_and_new(limits.metric, predictions),
        agreement=None if same is None else float(np.mean(same)),
        mcnemar=_mcnemar(predictions),
        classes=judged.collapsed,
    )


def _judge(before: Result, after: Result, predictions: Predictions, limits: Limits) -> Judgement:
    """Judge predictions; those of an identical file are only compared if they differ."""
    unused = "min_agreement" if predictions.labels is not None else "max_drop_pp"
    judged = accuracy.judge(limits.model_copy(update={unused: None}), predictions)
    if predictions.before is None:
        unknown = Check("max_drop_pp", limits.max_drop_pp, UNKNOWN_DROP, "inconclusive")
        note = "the test images differ: accuracy is not compared; accept a run on the same images"
        return Judgement((unknown, *judged.checks), notes=(note, *judged.notes))
    if not _is_identical(before, after):
        return judged
    changed = int(np.sum(predictions.before != predictions.after))
    if changed:
        note = f"the file is identical, but {changed} predictions differ: the runtime or the machine changed them"
        return Judgement(judged.checks, judged.collapsed, (note, *judged.notes))
    recalls = accuracy.judge(AccuracyLimits(min_recall=limits.min_recall, confidence=limits.confidence), predictions)
    relative = (at_least("min_agreement", Estimate(1.0, 1.0, 1.0), limits.min_agreement) if predictions.labels is None
                else at_most("max_drop_pp", Estimate(0.0, 0.0, 0.0), limits.max_drop_pp))  # fmt: skip
    note = f"identical file and predictions (sha256 {after.sha256[:12]}…): nothing is lost"
    return Judgement((relative, *recalls.checks), notes=(note, *recalls.notes))


def _is_identical(before: Result, after: Result) -> bool:
    return bool(after.sha256) and before.sha256 == after.sha256


def _is_same_measurement(before: Result, after: Result) -> bool:
    return (before.latency_ms, before.reference_ms) == (after.latency_ms, after.reference_ms)


def _old_and_new(metric: Metric, predictions: Predictions) -> tuple[float, float] | None:
    """Return a metric of the old and the new predictions, None if they can't be compared by it."""
    if predictions.before is None or predictions.labels is None:
        return None
    old, new = (metrics.value(metric, side, predictions.labels) for side in (predictions.before, predictions.after))
    return old, new


def _mcnemar(predictions: Predictions) -> float | None:
    if predictions.before is None or predictions.labels is None:
        return None
    return statistics.mcnemar(*statistics.changes(predictions.before, predictions.after, predictions.labels))


def _compare_latency(before: Result, after: Result, limits: Limits) -> tuple[list[Check], list[str]]:
    """Return the check of latency, none without a limit or if the environments differ, and notes."""
    if limits.max_slowdown is None:
        return [], ["latency is not compared, as asked"]
    different = _differences(before, after)
    if different:
        return [], [f"latency is not compared, the environments differ: {'; '.join(different)}"]
    notes = []
    if before.reference_bytes != after.reference_bytes:
        notes.append("the float32 networks differ: latency is compared in milliseconds, not relative to float32")
    if _is_same_measurement(before, after):
        unchanged = at_most("max_slowdown", Estimate(1.0, 1.0, 1.0), limits.max_slowdown)
        return [unchanged], []
    check = at_most("max_slowdown", _slowdown(before, after, limits), limits.max_slowdown)
    if _is_identical(before, after) and check.verdict != "pass":
        notes.append("the file is identical: a slowdown is one of the machine or its load, not of the file")
    return [check], notes


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
