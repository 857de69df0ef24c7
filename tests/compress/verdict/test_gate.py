from __future__ import annotations

from typing import get_args

import pytest

from compress.verdict.gate import (
    EXIT_CODES,
    Check,
    Gate,
    Verdict,
    at_least,
    at_most,
    judge,
    overall,
)
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
    assert at_most("max_top1_drop_pp", estimate, 1.0) == Check("max_top1_drop_pp", 1.0, estimate, verdict)  # type: ignore[arg-type]


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


def test_a_gate_needs_a_limit() -> None:
    with pytest.raises(ValueError, match="a gate needs at least one of max_top1_drop_pp, min_agreement"):
        Gate()


def test_each_limit_of_the_gate_is_checked() -> None:
    gate = Gate(max_top1_drop_pp=1, min_agreement=0.9, min_speedup_p50=2, max_size_ratio=0.5)
    drop, agreement, speedup = Estimate(0.5, 0.1, 0.9), Estimate(0.95, 0.91, 0.99), Estimate(1.5, 1.4, 1.6)
    checks = judge(gate, drop, agreement, speedup, 0.25)
    assert [(check.name, check.limit, check.verdict) for check in checks] == [
        ("max_top1_drop_pp", 1, "pass"),
        ("min_agreement", 0.9, "pass"),
        ("min_speedup_p50", 2, "regression"),
        ("max_size_ratio", 0.5, "pass"),
    ]
    assert {check.name for check in checks} == Gate.model_fields.keys() - {"confidence"}
    assert judge(Gate(max_size_ratio=0.2), drop, agreement, speedup, 0.25)[0].verdict == "regression"


def test_an_unknown_drop_is_inconclusive() -> None:
    (check,) = judge(Gate(max_top1_drop_pp=1), None, Estimate(1, 1, 1), Estimate(1, 1, 1), 1.0)
    assert check.verdict == "inconclusive"
