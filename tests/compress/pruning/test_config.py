"""Tests of the settings of pruning."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from compress.pruning.config import PruneConfig
from runtimes.errors import InputError
from runtimes.target import Target


@pytest.mark.parametrize(("fields", "message"), [
    ({}, "either latency or macs"), ({"latency": 0.5, "macs": 0.5}, "either latency or macs"),
    ({"macs": 1.0}, "less than 1"), ({"macs": 0.5, "most_pruned": 0}, "greater than 0"),
    ({"macs": 0.5, "rounds": 2}, "2 rounds need the section fine_tune"),
    ({"macs": 0.5, "importance": "l3"}, "taylor"), ({"macs": 0.5, "widths": 8}, "Extra inputs are not permitted"),
])  # fmt: skip
def test_invalid_settings_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PruneConfig(**fields)  # type: ignore[arg-type]


def test_the_budget_is_that_of_latency_or_macs() -> None:
    assert PruneConfig(latency=0.4).budget == 0.4
    assert PruneConfig(macs=0.6).budget == 0.6


def test_only_a_latency_budget_needs_a_target() -> None:
    first, second = Target("pi"), Target("pc")
    assert PruneConfig(macs=0.5, target="pc").measures_on((first, second)) is None
    assert PruneConfig(latency=0.5).measures_on((first, second)) == first
    assert PruneConfig(latency=0.5, target="pc").measures_on((first, second)) == second
    with pytest.raises(InputError, match="target: there is no target 'board'; choose from pi, pc"):
        PruneConfig(latency=0.5, target="board").measures_on((first, second))
