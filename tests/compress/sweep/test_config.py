"""Sweep files: what is valid, and the number of trials."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compress.sweep.config import DIRECTIONS, MAX_TRIALS, Objective, Range, Sweep

LR = {"stages.0.lr": {"low": 0.001, "high": 0.1, "log": True}}


def sweep(**fields: Any) -> Sweep:
    return Sweep.model_validate({"recipe": "r.yaml", "vary": {"a": [1, 2], "b": [3, 4, 5]}, **fields})


def test_a_grid_has_all_combinations_and_a_search_its_trials() -> None:
    assert sweep().count() == 6
    assert sweep(method="random", trials=4).count() == 4
    assert sweep(method="tpe", trials=MAX_TRIALS, vary=LR).count() == MAX_TRIALS


def test_the_defaults_are_a_grid_for_accuracy_and_latency_on_the_first_target() -> None:
    assert (sweep().method, sweep().objectives, sweep().target) == ("grid", ("top1", "latency_ms_p50"), None)


def test_every_objective_has_a_direction() -> None:
    better_if_higher = {"top1", "balanced_accuracy", "macro_f1", "speedup_p50"}
    assert set(DIRECTIONS) == set(Objective.__args__)  # type: ignore[attr-defined]
    assert {name for name, direction in DIRECTIONS.items() if direction == "maximize"} == better_if_higher


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vary": {}}, "at least 1 item"),
        ({"vary": {"a": []}}, "at least 1 item"),
        ({"vary": LR}, "a grid needs a list of values; a range needs method tpe or random"),
        ({"method": "tpe"}, "trials: is required for the method tpe"),
        ({"method": "tpe", "trials": 0}, "greater than or equal to 1"),
        ({"method": "tpe", "trials": MAX_TRIALS + 1}, "less than or equal to 10000"),
        ({"trials": 4}, "a grid runs all combinations; remove trials"),
        ({"vary": {name: list(range(100)) for name in "abc"}}, "1000000 combinations; at most 10000"),
        ({"objectives": ["top1", "top1"]}, "must not contain an objective twice"),
        ({"objectives": []}, "at least 1 item"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"trails": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_sweep_is_an_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        sweep(**fields)


@pytest.mark.parametrize(
    ("low", "high", "log", "valid"),
    [(1, 2, False, True), (2, 2, False, False), (3, 2, False, False), (0, 1, True, False), (-1, 1, False, True)],
)
def test_the_bounds_of_a_range(low: float, high: float, log: bool, valid: bool) -> None:
    if valid:
        assert Range(low=low, high=high, log=log).low == low
    else:
        with pytest.raises(ValidationError, match="low must be less than high, and above 0 if log is true"):
            Range(low=low, high=high, log=log)
