"""The gate: compare estimates with limits; verdicts come from confidence bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from compress.recipe.section import Config
from compress.verdict.statistics import Estimate

Verdict = Literal["pass", "regression", "inconclusive"]

UNKNOWN_DROP = Estimate(0.0, -100.0, 100.0)
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "regression": 3, "inconclusive": 4}


class Gate(Config):
    """Limits for the last artifact of each target, judged by one-sided bounds at `confidence`.

    max_top1_drop_pp: percentage points below the baseline. min_agreement: share of test images with the baseline's
    prediction; needs no labels. min_speedup_p50: baseline / artifact latency. max_size_ratio: artifact / baseline
    bytes.
    """

    max_top1_drop_pp: Annotated[float, Field(ge=0, le=100)] | None = None
    min_agreement: Annotated[float, Field(gt=0, le=1)] | None = None
    min_speedup_p50: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_size_ratio: Annotated[float, Field(gt=0, le=10)] | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95

    @model_validator(mode="after")
    def _has_a_limit(self) -> Gate:
        limits = [name for name in type(self).model_fields if name != "confidence"]
        if all(getattr(self, name) is None for name in limits):
            raise ValueError(f"a gate needs at least one of {', '.join(limits)}")
        return self


@dataclass(frozen=True)
class Check:
    """One limit with its estimate and verdict. name: the limit's key in the recipe's gate."""

    name: str
    limit: float
    estimate: Estimate
    verdict: Verdict


def judge(
    gate: Gate, drop_pp: Estimate | None, agreement: Estimate, speedup_p50: Estimate, size_ratio: float
) -> tuple[Check, ...]:
    """Check one artifact against the baseline by each limit of the gate; drop_pp: None without labels."""
    checks = []
    if gate.max_top1_drop_pp is not None:
        checks.append(at_most("max_top1_drop_pp", drop_pp or UNKNOWN_DROP, gate.max_top1_drop_pp))
    if gate.min_agreement is not None:
        checks.append(at_least("min_agreement", agreement, gate.min_agreement))
    if gate.min_speedup_p50 is not None:
        checks.append(at_least("min_speedup_p50", speedup_p50, gate.min_speedup_p50))
    if gate.max_size_ratio is not None:
        checks.append(at_most("max_size_ratio", Estimate(size_ratio, size_ratio, size_ratio), gate.max_size_ratio))
    return tuple(checks)


def at_most(name: str, estimate: Estimate, limit: float) -> Check:
    """Check a value that must not be above the limit."""
    return Check(name, limit, estimate, _verdict(estimate.high <= limit, estimate.low > limit))


def at_least(name: str, estimate: Estimate, limit: float) -> Check:
    """Check a value that must not be below the limit."""
    return Check(name, limit, estimate, _verdict(estimate.low >= limit, estimate.high < limit))


def overall(checks: list[Check]) -> Verdict:
    """Return the worst verdict; without any check it is inconclusive."""
    verdicts = {check.verdict for check in checks}
    if "regression" in verdicts:
        return "regression"
    return "inconclusive" if "inconclusive" in verdicts or not checks else "pass"


def _verdict(passes: bool, fails: bool) -> Verdict:
    return "pass" if passes else "regression" if fails else "inconclusive"
