"""Checks: an estimate against a limit, with a verdict from the confidence bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compress.verdict.statistics import Estimate

Verdict = Literal["pass", "regression", "inconclusive"]

DROPS = ("max_drop_pp", "class_recall")  # limits on a loss in percentage points
SPEEDUP = "min_speedup_p50"
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "regression": 3, "inconclusive": 4}


@dataclass(frozen=True)
class Check:
    """One limit with its estimate and verdict. name: key of the limit, `min_recall.CLASS` for the recall of a class."""

    name: str
    limit: float
    estimate: Estimate
    verdict: Verdict


def at_most(name: str, estimate: Estimate, limit: float) -> Check:
    """Check a value that must not be above the limit."""
    return Check(name, limit, estimate, _verdict(estimate.high <= limit, estimate.low > limit))


def at_least(name: str, estimate: Estimate, limit: float) -> Check:
    """Check a value that must not be below the limit."""
    return Check(name, limit, estimate, _verdict(estimate.low >= limit, estimate.high < limit))


def shown(check: Check) -> tuple[str, str, str]:
    """Return the value and the bounds of a check as text.

    A drop is shown as a change, so that a gain is positive as in the tables of results. A speed-up is the paired one,
    which differs from the ratio of two p50.
    """
    value, low, high = check.estimate.value, check.estimate.low, check.estimate.high
    if check.name in DROPS:
        change, least, greatest = (f"{0 - number:+.2f}" for number in (value, high, low))
        return f"change {change}", least, greatest
    paired = "paired " if check.name == SPEEDUP else ""
    return f"{paired}{value + 0.0:.3f}", f"{low + 0.0:.3f}", f"{high + 0.0:.3f}"


def overall(checks: list[Check]) -> Verdict:
    """Return the worst verdict; without any check it is inconclusive."""
    verdicts = {check.verdict for check in checks}
    if "regression" in verdicts:
        return "regression"
    return "inconclusive" if "inconclusive" in verdicts or not checks else "pass"


def _verdict(passes: bool, fails: bool) -> Verdict:
    return "pass" if passes else "regression" if fails else "inconclusive"
