"""The gate: limits of a recipe on the last artifact of each target, compared with the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from compress.verdict import accuracy, metrics
from compress.verdict.accuracy import AccuracyLimits, Judgement, Labels, Predictions
from compress.verdict.checks import Check, at_least, at_most
from compress.verdict.statistics import Estimate
from runtimes.errors import InputError


class Gate(AccuracyLimits):
    """Limits for the last artifact of each target, judged by one-sided bounds at `confidence`.

    metric: of `max_drop_pp`, `min_accuracy`, of reports and of sweeps.
    max_drop_pp: percentage points of the metric below the baseline; no class may lose significantly more recall either.
    min_accuracy: least value of the metric from 0 to 1, top1 or balanced_accuracy, of the artifact itself.
    min_recall: least recall of classes, by name, of the artifact itself, as in `{defective: 0.8}`.
    min_agreement: least share of test images with the baseline's prediction; needs no labels.
    min_speedup_p50: least latency of the baseline / latency of the artifact, at p50, paired by session.
    max_size_ratio: greatest size of the artifact / size of the baseline.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"max_top1_drop_pp": "max_drop_pp"}

    min_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    min_speedup_p50: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_size_ratio: Annotated[float, Field(gt=0, le=10)] | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Gate:
        limits = [name for name in type(self).model_fields if name not in ("metric", "confidence")]
        if not any(getattr(self, name) not in (None, {}) for name in limits):
            raise ValueError(f"a gate needs at least one of {', '.join(limits)}")
        if self.min_accuracy is not None and self.metric == "macro_f1":
            raise ValueError(
                "min_accuracy: needs metric: top1 or balanced_accuracy; macro_f1 has no bounds of its value"
            )
        return self

    @property
    def compares(self) -> bool:
        """True if a limit compares the artifact with the baseline; min_accuracy and min_recall need no baseline."""
        return any(value is not None for value in (
            self.max_drop_pp, self.min_agreement, self.min_speedup_p50, self.max_size_ratio,
        ))  # fmt: skip


def judge(
    gate: Gate, predictions: Predictions, speedup_p50: Estimate | None = None, size_ratio: float | None = None
) -> Judgement:
    """Judge one artifact by each limit of the gate; without a baseline, by its accuracy and recall only."""
    judged = accuracy.judge(gate, predictions)
    checks: list[Check] = []
    if gate.min_accuracy is not None and predictions.labels is not None:
        value = metrics.estimate(gate.metric, predictions.after, predictions.labels, gate.confidence)
        checks.append(at_least("min_accuracy", value, gate.min_accuracy))
    if gate.min_speedup_p50 is not None and speedup_p50 is not None:
        checks.append(at_least("min_speedup_p50", speedup_p50, gate.min_speedup_p50))
    if gate.max_size_ratio is not None and size_ratio is not None:
        checks.append(at_most("max_size_ratio", Estimate(size_ratio, size_ratio, size_ratio), gate.max_size_ratio))
    return Judgement((*judged.checks, *checks), judged.collapsed, judged.notes)


def refuse_unknown(gate: Gate, labels: Labels | None, classes: tuple[str, ...]) -> None:
    """Raise InputError for limits that these test images can't be judged by."""
    accuracy.refuse_unknown(gate, labels, classes, "gate.")
    if labels is None and gate.min_accuracy is not None:
        raise InputError("gate.min_accuracy: the test images have no labels; give min_agreement instead")


def out_of_reach(gate: Gate, labels: Labels | None, images: int, classes: tuple[str, ...]) -> list[str]:
    """Return one line for each limit that a network without any loss can't be shown to keep on so few test images."""
    lines = accuracy.out_of_reach(gate, labels, images, classes)
    if gate.min_accuracy is None or labels is None:
        return lines
    best = metrics.estimate(gate.metric, labels, labels, gate.confidence).low
    if best >= gate.min_accuracy:
        return lines
    return [*lines, f"min_accuracy {gate.min_accuracy:g}: {images} test images can't show it, because with all of them "
            f"right the bound is {best:.3f}; add test images or lower the limit"]  # fmt: skip
