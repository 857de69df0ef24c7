"""The gate: limits of a recipe on the last artifact of each target, compared with the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from compress.verdict import accuracy
from compress.verdict.accuracy import AccuracyLimits, Judgement, Predictions
from compress.verdict.checks import Check, at_least, at_most
from compress.verdict.statistics import Estimate


class Gate(AccuracyLimits):
    """Limits for the last artifact of each target, judged by one-sided bounds at `confidence`.

    metric: of `max_drop_pp`, of reports and of sweeps: top1, balanced_accuracy or macro_f1. max_drop_pp: percentage
    points of the metric below the baseline; no class may lose significantly more recall either. min_recall: by class.
    min_agreement: share of test images with the baseline's prediction; needs no labels. min_speedup_p50: baseline /
    artifact latency. max_size_ratio: artifact / baseline bytes.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"max_top1_drop_pp": "max_drop_pp"}

    min_speedup_p50: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_size_ratio: Annotated[float, Field(gt=0, le=10)] | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Gate:
        limits = [name for name in type(self).model_fields if name not in ("metric", "confidence")]
        if not any(getattr(self, name) not in (None, {}) for name in limits):
            raise ValueError(f"a gate needs at least one of {', '.join(limits)}")
        return self

    @property
    def compares(self) -> bool:
        """True if a limit compares the artifact with the baseline; `min_recall` needs the artifact only."""
        return any(value is not None for value in (
            self.max_drop_pp, self.min_agreement, self.min_speedup_p50, self.max_size_ratio,
        ))  # fmt: skip


def judge(
    gate: Gate, predictions: Predictions, speedup_p50: Estimate | None = None, size_ratio: float | None = None
) -> Judgement:
    """Judge one artifact by each limit of the gate; without a baseline, by its recall only."""
    judged = accuracy.judge(gate, predictions)
    checks: list[Check] = []
    if gate.min_speedup_p50 is not None and speedup_p50 is not None:
        checks.append(at_least("min_speedup_p50", speedup_p50, gate.min_speedup_p50))
    if gate.max_size_ratio is not None and size_ratio is not None:
        checks.append(at_most("max_size_ratio", Estimate(size_ratio, size_ratio, size_ratio), gate.max_size_ratio))
    return Judgement((*judged.checks, *checks), judged.collapsed, judged.notes)
