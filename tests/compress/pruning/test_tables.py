"""Tests of pruning plans as tables and text."""

from __future__ import annotations

from dataclasses import replace

from compress.pruning.plans import Cut, PruningPlan
from compress.pruning.tables import plan_lines, plan_summary, plan_table

LONG = "features.12.block.expansion.convolution.0"
PLAN = PruningPlan(
    (Cut("stem", ("stem",), 32, tuple(range(24)), 0.125, 0.0625), Cut("same", ("same",), 8, tuple(range(8)), 0.0, 0.0),
     Cut(LONG, (LONG,), 16, tuple(range(8)), 0.5, 1.5)),
    "ms", 2.0, 0.6, 0.58, 0.61,
)  # fmt: skip


def test_only_groups_that_lose_channels_have_a_row() -> None:
    table = plan_table(PLAN)
    assert [column.name for column in table.columns] == ["pruned group", "channels", "importance", "saved"]
    assert [column.align for column in table.columns] == ["left", "right", "right", "right"]
    assert table.rows == (
        ("stem", "32 -> 24", "-12.5 %", "0.062 ms"),
        ("…s.12.block.expansion.convolution.0", "16 -> 8", "-50.0 %", "1.500 ms"),
    )


def test_multiplications_have_a_readable_unit() -> None:
    cut = replace(PLAN.cuts[0], cost_saved=1_234_567.0)
    assert plan_table(replace(PLAN, cuts=(cut,), unit="MACs")).rows[0][-1] == "1.23 MMACs"
    small = replace(cut, cost_saved=4321.0)
    assert plan_table(replace(PLAN, cuts=(small,), unit="MACs")).rows[0][-1] == "4.3 kMACs"


def test_a_rounding_error_of_importance_has_one_sign() -> None:
    cut = replace(PLAN.cuts[0], importance_removed=-1e-16)
    assert plan_table(replace(PLAN, cuts=(cut,))).rows[0][2] == "-0.0 %"


def test_the_summary_compares_the_shares() -> None:
    assert plan_summary(PLAN) == "latency / baseline: 0.600 requested, 0.580 predicted, 0.610 measured"
    counted = replace(PLAN, unit="MACs", measured_share=None)
    assert plan_summary(counted) == ("multiplications / baseline: 0.600 requested, 0.580 predicted, not measured")


def test_lines_fit_80_columns_and_are_aligned() -> None:
    header, *rows, summary = plan_lines(PLAN)
    assert header.split() == ["pruned", "group", "channels", "importance", "saved"]
    assert {len(line) for line in (header, *rows)} == {78}
    assert len(summary) <= 80
