"""Accuracy after each step and changed predictions, against counts by hand."""

from __future__ import annotations

import pytest

from compress.report.accuracy_steps import accuracy_steps, flips

LABELS = [0, 0, 1, 1]


def test_each_step_is_compared_with_the_one_before() -> None:
    first, second, third = accuracy_steps(
        [("train", [0, 0, 1, 0]), ("prune", [0, 1, 0, 1]), ("int8", [0, 1, 0, 1])], LABELS, 0.95
    )
    assert (first.top1, first.drop_pp, first.lost, first.gained) == (0.75, None, 0, 0)
    assert (second.top1, second.lost, second.gained) == (0.5, 2, 1)
    assert second.drop_pp is not None
    assert second.drop_pp.value == pytest.approx(25)
    assert second.drop_pp.low < 25 < second.drop_pp.high
    assert third.drop_pp is not None
    assert (third.drop_pp.value, third.lost, third.gained) == (0, 0, 0)


def test_lost_predictions_come_first() -> None:
    changed = flips([1, 0, 1, 0], [0, 1, 1, 0], LABELS, "wxyz")
    assert [(flip.index, flip.name, flip.kind) for flip in changed] == [(1, "x", "lost"), (0, "w", "gained")]


@pytest.mark.parametrize(
    ("label", "before", "after", "kind"),
    [(1, 1, 2, "lost"), (1, 2, 1, "gained"), (1, 2, 3, "both wrong"), (None, 0, 1, "changed")],
)
def test_a_flip_is_of_one_kind(label: int | None, before: int, after: int, kind: str) -> None:
    (flip,) = flips([before], [after], [label], ["image"])
    assert (flip.kind, flip.label, flip.before, flip.after) == (kind, label, before, after)


def test_equal_predictions_are_no_flips() -> None:
    assert flips([0], [0], [1], ["image"]) == ()
