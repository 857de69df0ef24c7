"""Where the points went, against counts by hand."""

from __future__ import annotations

import pytest

from compress.report.accuracy_steps import falls, flips

LABELS = [0, 0, 1, 1]


def test_each_step_is_compared_with_the_one_before() -> None:
    first, second, third = falls(
        [("train", [0, 0, 1, 0]), ("prune", [0, 1, 0, 1]), ("int8", [0, 1, 0, 1])], LABELS, 0.95
    )
    assert (first.top1, first.drop_pp, first.lost, first.won) == (0.75, None, 0, 0)
    assert (second.top1, second.lost, second.won) == (0.5, 2, 1)
    assert second.drop_pp is not None
    assert second.drop_pp.value == pytest.approx(25)
    assert second.drop_pp.low < 25 < second.drop_pp.high
    assert third.drop_pp is not None
    assert (third.drop_pp.value, third.lost, third.won) == (0, 0, 0)


def test_lost_answers_come_first() -> None:
    found = flips([1, 0, 1, 0], [0, 1, 1, 0], LABELS)
    assert [(one.index, one.kind) for one in found] == [(1, "lost"), (0, "won")]
    (both,) = flips([2], [3], [1])
    assert both.kind == "both wrong"
    assert flips([0], [0], [1]) == []
