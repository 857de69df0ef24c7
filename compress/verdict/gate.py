"""The gate: limits against estimates, and a verdict that noise can't buy."""

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
    """The limits; each is judged by a one-sided bound at `confidence`, so that noise decides nothing.

    max_top1_drop_pp: percentage points. min_agreement: share of test images with float32's answer, for which no labels
    are needed. min_speedup_p50: float32 / INT8 latency. max_size_ratio: INT8 / float32 bytes.
    """

    max_top1_drop_pp: Annotated[float, Field(ge=0, le=100)] | None = None
    min_agreement: Annotated[float, Field(gt=0, le=1)] | None = None
    min_speedup_p50: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_size_ratio: Annotated[float, Field(gt=0, le=10)] | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95

    @model_validator(mode="after")
    def _limits_something(self) -> Gate:
        limits = ("max_top1_drop_pp", "min_agreement", "min_speedup_p50", "max_size_ratio")
        if all(getattr(self, name) is None for name in limits):
            raise ValueError(f"a gate needs at least one of {', '.join(limits)}")
        return self


@dataclass(frozen=True)
class Check:
    """One limit and how it was judged. name: as in the recipe's gate."""

    name: str
    limit: float
    estimate: Estimate
    verdict: Verdict


def judge(
    gate: Gate, drop_pp: Estimate | None, agreement: Estimate, speedup_p50: Estimate, size_ratio: float
) -> tuple[Check, ...]:
    """Judge one artifact against float32 by every limit that the gate has; drop_pp: None without labels."""
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
    """Judge a value that must not be above the limit."""
    return Check(name, limit, estimate, _verdict(estimate.high <= limit, estimate.low > limit))


def at_least(name: str, estimate: Estimate, limit: float) -> Check:
    """Judge a value that must not be below the limit."""
    return Check(name, limit, estimate, _verdict(estimate.low >= limit, estimate.high < limit))


def overall(checks: list[Check]) -> Verdict:
    """Return the worst verdict; a gate without any check is inconclusive, because nothing was shown."""
    verdicts = {check.verdict for check in checks}
    if "regression" in verdicts:
        return "regression"
    return "inconclusive" if "inconclusive" in verdicts or not checks else "pass"


def _verdict(holds: bool, broken: bool) -> Verdict:
    return "pass" if holds else "regression" if broken else "inconclusive"
