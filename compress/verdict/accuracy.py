"""Judge the accuracy of a network: drop of a metric, recall of the classes, agreement with another network."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from compress.recipe.names import near
from compress.recipe.section import Config
from compress.verdict import metrics, statistics
from compress.verdict.checks import Check, Verdict, at_least, at_most
from compress.verdict.classes import ClassDrop, class_drops, never_right, too_small
from compress.verdict.metrics import Metric
from compress.verdict.statistics import Estimate
from runtimes.errors import InputError
from runtimes.files import JsonValue

UNKNOWN_DROP = Estimate(0.0, -100.0, 100.0)
MIN_RECALL = "min_recall."  # in the name of a check, before the name of the class

Labels = npt.NDArray[np.int64]


def _quoted(content: JsonValue) -> JsonValue:
    """Raise ValueError for a class name that YAML reads as a number or boolean: 007 is 7, and no is False."""
    if isinstance(content, dict):
        for name in content:
            if not isinstance(name, str):
                raise ValueError(f"write the class name in quotes; YAML reads it as {name!r}")
    return content


class AccuracyLimits(Config):
    """Limits on accuracy, judged by one-sided bounds at `confidence`; None for no limit.

    metric: of `max_drop_pp`.
    max_drop_pp: percentage points of the metric, and of the recall of each class, below the reference.
    min_recall: least recall of classes, by name, of the new network itself.
    min_agreement: least share of test images with the reference's prediction; needs no labels.
    confidence: of the one-sided bounds that decide.
    """

    metric: Metric = "top1"
    max_drop_pp: Annotated[float, Field(ge=0, le=100)] | None = None
    min_recall: Annotated[dict[str, Annotated[float, Field(gt=0, le=1)]], BeforeValidator(_quoted)] = Field(default={})
    min_agreement: Annotated[float, Field(gt=0, le=1)] | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95


@dataclass(frozen=True)
class Predictions:
    """Predictions on the test images. before: of the reference, None without; labels: None if any is unknown.

    before, after, labels: class numbers (N,).
    """

    before: npt.NDArray[np.int64] | None
    after: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64] | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """Checks, classes that collapsed, and notes, one line each."""

    checks: tuple[Check, ...]
    collapsed: tuple[ClassDrop, ...] = ()
    notes: tuple[str, ...] = ()


def judge(limits: AccuracyLimits, predictions: Predictions) -> Judgement:
    """Judge predictions by each limit; limits on a drop and on agreement need the reference's predictions.

    Raises InputError for a limit on the recall of a class without test images.
    """
    parts = [judge_part(limits, predictions) for judge_part in (_drop, _classes, _recalls, _agreement)]
    return Judgement(
        tuple(check for part in parts for check in part.checks),
        tuple(drop for part in parts for drop in part.collapsed),
        tuple(note for part in parts for note in part.notes),
    )


def refuse_unknown(limits: AccuracyLimits, labels: Labels | None, classes: tuple[str, ...], section: str = "") -> None:
    """Raise InputError for limits that these test images can't be judged by; section: before the key in messages.

    These are limits on accuracy without labels, recall of an unknown class, and means over classes without images.
    """
    if labels is None:
        needed = {"min_recall": bool(limits.min_recall), "metric": limits.metric != "top1",
                  "max_drop_pp": limits.max_drop_pp is not None}  # fmt: skip
        for key in (key for key, is_set in needed.items() if is_set):
            raise InputError(f"{section}{key}: the test images have no labels; give min_agreement instead")
        return
    for name in limits.min_recall:
        if not np.any(labels == class_number(name, classes, section)):
            raise InputError(f"{section}min_recall.{name}: the class has no test images; add some or remove the limit")
    empty = [name for label, name in enumerate(classes) if not np.any(labels == label)]
    if limits.metric != "top1" and empty:
        raise InputError(f"{section}metric: {limits.metric} needs test images of every class, and there are none of "
                         f"'{empty[0]}'; add some or set metric: top1")  # fmt: skip


def class_number(name: str, classes: tuple[str, ...], section: str = "") -> int:
    """Return the number of a class; raises InputError if there is none of that name."""
    known = [unicodedata.normalize("NFC", known) for known in classes]
    wanted = unicodedata.normalize("NFC", name)
    if wanted not in known:
        raise InputError(f"{section}min_recall: there is no class '{name}'{near(wanted, known)}")
    return known.index(wanted)


def out_of_reach(limits: AccuracyLimits, labels: Labels | None, images: int, classes: tuple[str, ...]) -> list[str]:
    """Return one line for each limit that a network without any loss can't be shown to keep on so few test images."""
    lines = [_agreement_out_of_reach(limits, images)]
    if labels is not None:
        counts = {name: int(np.sum(labels == class_number(name, classes))) for name in limits.min_recall}
        lines.append(_drop_out_of_reach(limits, labels, labels))
        lines += [_recall_out_of_reach(limits, *item) for item in counts.items()]
    return [line for line in lines if line]


def _drop(limits: AccuracyLimits, predictions: Predictions) -> Judgement:
    limit, before, labels = limits.max_drop_pp, predictions.before, predictions.labels
    if limit is None or before is None:
        return Judgement(())
    if labels is None:
        note = "the test images have no labels: neither accuracy nor the recall of classes is checked"
        return Judgement((at_most("max_drop_pp", UNKNOWN_DROP, limit),), notes=(note,))
    drop = metrics.drop_pp(limits.metric, before, predictions.after, labels, limits.confidence)
    check, notes = at_most("max_drop_pp", drop, limit), []
    if check.verdict == "inconclusive":
        notes.append(_drop_out_of_reach(limits, labels, before) or _images_needed(drop, len(labels), limits))
    if -drop.high > limit:
        notes.append(f"implausible: {metrics.NAMES[limits.metric]} rose by {-drop.value:.2f} points; "
                     "was the network trained on the test images?")  # fmt: skip
    return Judgement((check,), notes=tuple(notes))


def _images_needed(drop: Estimate, images: int, limits: AccuracyLimits) -> str:
    assert limits.max_drop_pp is not None
    needed = statistics.images_to_settle(drop, images, limits.max_drop_pp, limits.confidence)
    advice = f"use about {needed} images" if needed else "the drop is exactly at the limit"
    return f"{images} images are too few to tell the drop from the limit; {advice}"


def _drop_out_of_reach(limits: AccuracyLimits, labels: Labels, before: Labels) -> str | None:
    """Say that no network without gains can pass; before: predictions of the reference, labels if not yet known."""
    if limits.max_drop_pp is None:
        return None
    best, images = metrics.drop_pp(limits.metric, before, before, labels, limits.confidence).high, len(labels)
    if best <= limits.max_drop_pp:
        return None
    advice = (f"use about {math.ceil(images * best / limits.max_drop_pp)} images or a larger limit"
              if limits.max_drop_pp else "set a limit above 0")  # fmt: skip
    return (f"max_drop_pp {limits.max_drop_pp:g}: on {images} test images only a gain can pass, because without any "
            f"changed prediction the bound is {best:.2g}; {advice}")  # fmt: skip


def _classes(limits: AccuracyLimits, predictions: Predictions) -> Judgement:
    limit, before, labels = limits.max_drop_pp, predictions.before, predictions.labels
    if limit is None or before is None or labels is None:
        return Judgement(())
    drops = class_drops(before, predictions.after, labels, predictions.classes, limit, limits.confidence)
    notes = [f"class '{drop.name}': {drop.lost} of {drop.images} images lost, {drop.gained} gained; too few to judge, "
             "add test images of this class" for drop in drops.unclear]  # fmt: skip
    blind = [
        too_small(labels, predictions.classes, limits.confidence), never_right(before, labels, predictions.classes)
    ]  # fmt: skip
    checks: tuple[Check, ...] = ()
    if drops.collapsed or drops.unclear:
        worst = max(drops.collapsed or drops.unclear, key=lambda drop: drop.drop_pp)
        verdict: Verdict = "regression" if drops.collapsed else "inconclusive"
        checks = (Check("class_recall", limit, worst.estimate(limits.confidence), verdict),)
    return Judgement(checks, drops.collapsed, (*notes, *(line for line in blind if line)))


def _recalls(limits: AccuracyLimits, predictions: Predictions) -> Judgement:
    checks, notes = [], []
    for name, limit in limits.min_recall.items():
        label = class_number(name, predictions.classes)
        if predictions.labels is None or not np.any(predictions.labels == label):
            raise InputError(f"min_recall.{name}: there are no test images with this label; remove the limit")
        of_class = predictions.after[predictions.labels == label]
        recall = statistics.agreement(np.full(len(of_class), label), of_class, limits.confidence)
        checks.append(at_least(f"{MIN_RECALL}{predictions.classes[label]}", recall, limit))
        if checks[-1].verdict == "inconclusive":
            notes.append(_recall_out_of_reach(limits, name, len(of_class)) or (
                f"class '{name}': {len(of_class)} test images are too few to tell its recall from the limit"
            ))  # fmt: skip
    return Judgement(tuple(checks), notes=tuple(notes))


def _recall_out_of_reach(limits: AccuracyLimits, name: str, images: int) -> str | None:
    best = statistics.agreement(np.zeros(images), np.zeros(images), limits.confidence).low if images else 0.0
    if best >= limits.min_recall[name]:
        return None
    return (f"min_recall.{name} {limits.min_recall[name]:g}: {images} test images can't show it, because with all of "
            f"them right the bound is {best:.3f}; add test images of the class or lower the limit")  # fmt: skip


def _agreement(limits: AccuracyLimits, predictions: Predictions) -> Judgement:
    if limits.min_agreement is None or predictions.before is None:
        return Judgement(())
    same = statistics.agreement(predictions.before, predictions.after, limits.confidence)
    check = at_least("min_agreement", same, limits.min_agreement)
    out_of_reach = _agreement_out_of_reach(limits, len(predictions.after)) if check.verdict == "inconclusive" else None
    notes = (out_of_reach, _constant(predictions.before, predictions.classes))
    return Judgement((check,), notes=tuple(note for note in notes if note))


def _constant(before: Labels, classes: tuple[str, ...]) -> str | None:
    """Return a line if the reference does not tell the test images apart."""
    if np.any(before != before[0]):
        return None
    return (f"the reference predicts '{classes[before[0]]}' for all test images, so that agreement shows little; check "
            "its training and the preprocessing")  # fmt: skip


def _agreement_out_of_reach(limits: AccuracyLimits, images: int) -> str | None:
    if limits.min_agreement is None:
        return None
    best = statistics.agreement(np.zeros(images), np.zeros(images), limits.confidence).low
    if best >= limits.min_agreement:
        return None
    return (f"min_agreement {limits.min_agreement:g}: {images} test images can't show it, because without any changed "
            f"prediction the bound is {best:.4f}; use more test images or a lower limit")  # fmt: skip
