"""Checks of estimates against limits."""

from __future__ import annotations

from typing import get_args

import pytest

from compress.verdict.checks import EXIT_CODES, Check, Verdict, at_least, at_most, overall, shown
from compress.verdict.statistics import Estimate


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.9, "pass"),
        (0.1, 1.0, "pass"),
        (1.1, 2.0, "regression"),
        (0.9, 1.1, "inconclusive"),
        (1.0, 1.1, "inconclusive"),
        (float("nan"), float("nan"), "inconclusive"),
    ],
)
def test_a_value_is_at_most_the_limit_when_its_upper_bound_is(low: float, high: float, verdict: str) -> None:
    estimate = Estimate((low + high) / 2, low, high)
    assert at_most("max_drop_pp", estimate, 1.0) == Check("max_drop_pp", 1.0, estimate, verdict)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.1, 2.0, "pass"),
        (1.0, 2.0, "pass"),
        (0.1, 0.9, "regression"),
        (0.9, 1.1, "inconclusive"),
        (0.9, 1.0, "inconclusive"),
        (float("nan"), float("nan"), "inconclusive"),
    ],
)
def test_a_value_is_at_least_the_limit_when_its_lower_bound_is(low: float, high: float, verdict: str) -> None:
    estimate = Estimate((low + high) / 2, low, high)
    assert at_least("min_speedup_p50", estimate, 1.0) == Check("min_speedup_p50", 1.0, estimate, verdict)  # type: ignore[arg-type]


def test_a_good_value_with_wide_bounds_passes_nothing() -> None:
    assert at_most("drop", Estimate(0.0, -3, 3), 1.0).verdict == "inconclusive"
    assert at_least("speedup", Estimate(5.0, 0.5, 9), 1.0).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["pass"], "pass"),
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "regression", "pass"], "regression"),
        (["pass", "regression"], "regression"),
        ([], "inconclusive"),
    ],
)
def test_the_worst_verdict_counts(verdicts: list[Verdict], expected: Verdict) -> None:
    assert overall([Check("x", 1.0, Estimate(1, 1, 1), verdict) for verdict in verdicts]) == expected


def test_each_verdict_has_its_exit_code() -> None:
    assert EXIT_CODES == {"pass": 0, "regression": 3, "inconclusive": 4}
    assert set(EXIT_CODES) == set(get_args(Verdict))


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("max_drop_pp", ("change +0.76", "-0.50", "+2.00")),
        ("class_recall", ("change +0.76", "-0.50", "+2.00")),
        ("min_speedup_p50", ("paired -0.760", "-2.000", "0.500")),
        ("min_agreement", ("-0.760", "-2.000", "0.500")),
    ],
)
def test_a_drop_is_shown_as_a_change(name: str, texts: tuple[str, str, str]) -> None:
    assert shown(Check(name, 1.0, Estimate(-0.76, -2.0, 0.5), "pass")) == texts


def test_a_change_of_nothing_has_no_minus() -> None:
    assert shown(at_most("max_drop_pp", Estimate(0.0, 0.0, 0.0), 1.0)) == ("change +0.00", "+0.00", "+0.00")
