"""Checks: an estimate against a limit, with a verdict from the confidence bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compress.verdict.statistics import Estimate

Verdict = Literal["pass", "regression", "inconclusive"]

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


def overall(checks: list[Check]) -> Verdict:
    """Return the worst verdict; without any check it is inconclusive."""
    verdicts = {check.verdict for check in checks}
    if "regression" in verdicts:
        return "regression"
    return "inconclusive" if "inconclusive" in verdicts or not checks else "pass"


def _verdict(passes: bool, fails: bool) -> Verdict:
    return "pass" if passes else "regression" if fails else "inconclusive"
