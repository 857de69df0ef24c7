"""The gate: limits against estimates, and a verdict that noise can't buy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compress.statistics import Estimate

Verdict = Literal["pass", "regression", "inconclusive"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "regression": 3, "inconclusive": 4}


@dataclass(frozen=True)
class Check:
    """One limit and how it was judged. name: as in the recipe's gate."""

    name: str
    limit: float
    estimate: Estimate
    verdict: Verdict


def at_most(name: str, estimate: Estimate, limit: float) -> Check:
    """Judge a value that must not be above the limit."""
    return Check(name, limit, estimate, _judge(estimate.high <= limit, estimate.low > limit))


def at_least(name: str, estimate: Estimate, limit: float) -> Check:
    """Judge a value that must not be below the limit."""
    return Check(name, limit, estimate, _judge(estimate.low >= limit, estimate.high < limit))


def overall(checks: list[Check]) -> Verdict:
    """Return the worst verdict; a gate without any check is inconclusive, because nothing was shown."""
    verdicts = {check.verdict for check in checks}
    if "regression" in verdicts:
        return "regression"
    return "inconclusive" if "inconclusive" in verdicts or not checks else "pass"


def _judge(holds: bool, broken: bool) -> Verdict:
    return "pass" if holds else "regression" if broken else "inconclusive"
