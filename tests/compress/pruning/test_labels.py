"""Tests of labels of channels."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.pruning.labels import KEPT, Labels, along, compact, varying

PAIRS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=20)


@given(pairs=PAIRS, kept=st.sets(st.integers(1, 12), max_size=3))
def test_joined_labels_have_one_root_and_share_what_keeps_them(pairs: list[tuple[int, int]], kept: set[int]) -> None:
    labels = Labels()
    labels.new(12)
    parts = {label: {label} for label in range(1, 13)}
    for label in kept:
        labels.keep(torch.tensor(label), f"reason {label}")
    for one, other in pairs:
        labels.join(torch.tensor([one]), torch.tensor([other]), "joined")
        merged = parts[one] | parts[other]
        parts |= dict.fromkeys(merged, merged)
    for label, part in parts.items():
        is_kept = bool(part & kept)
        assert (labels.root(label) == KEPT) is is_kept
        assert (labels.reason(label) is not None) is is_kept
        if not is_kept:
            assert {labels.root(other) for other in part} == {labels.root(label)}
            assert all(labels.root(other) != labels.root(label) for other in parts if other not in part)


def test_a_channel_that_meets_what_belongs_to_no_channel_is_kept_with_the_reason() -> None:
    labels = Labels()
    own = labels.new(2)
    labels.join(own, torch.tensor([KEPT, int(own[1])]), "a sum with a constant")
    assert [labels.reason(int(label)) for label in own] == ["a sum with a constant", None]


def test_labels_are_described_along_the_dimensions_where_they_differ() -> None:
    labels = torch.arange(1, 4).reshape(1, 3, 1, 1).expand(2, 3, 5, 5)
    assert varying(labels) == [1]
    assert varying(labels.contiguous()) == [1]
    assert compact(labels.contiguous()).shape == (1, 3, 1, 1)
    line = along(labels, 1)
    assert line is not None
    assert line.tolist() == [1, 2, 3]
    assert along(labels, -1) is None
    assert along(labels.flatten(1), 1) is not None
