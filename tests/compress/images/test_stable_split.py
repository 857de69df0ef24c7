"""Splits by a hash of names: shares, every class in every part, and what added and removed images move."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.images.samples import Sample
from compress.images.stable_split import stable_split
from runtimes.errors import InputError

CLASSES = ("cat", "dog")
SHARES = [(0.2, 0.1), (0.25,), (0.4, 0.4), (0.1, 0.2, 0.3)]
NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=4, max_size=40, unique=True)


def split(names: dict[int, list[str]], shares: tuple[float, ...], seed: int = 0) -> list[set[tuple[int | None, str]]]:
    pairs = [(Sample(name, b"", label), f"{CLASSES[label]}/{name}") for label, own in names.items() for name in own]
    parts = stable_split(pairs, shares, CLASSES, seed)
    return [{(sample.label, sample.name) for sample in part} for part in parts]


@settings(max_examples=200)
@given(cats=NAMES, dogs=NAMES, shares=st.sampled_from(SHARES), seed=st.integers(0, 2**31 - 1))
def test_each_image_is_in_one_part_and_each_class_in_all(
    cats: list[str], dogs: list[str], shares: tuple[float, ...], seed: int
) -> None:
    parts = split({0: cats, 1: dogs}, shares, seed)
    assert len(parts) == len(shares) + 1
    assert sum(map(len, parts)) == len(cats) + len(dogs)
    assert set.union(*parts) == {(0, name) for name in cats} | {(1, name) for name in dogs}
    assert all({label for label, _ in part} == {0, 1} for part in parts)
    assert parts == split({0: cats[::-1], 1: dogs[::-1]}, shares, seed)


@settings(max_examples=200)
@given(extra=NAMES, removed=st.sets(st.integers(0, 99), max_size=30), seed=st.integers(0, 1000))
def test_added_and_removed_images_move_no_other(extra: list[str], removed: set[int], seed: int) -> None:
    """A hundred images of each class: no part is without one, so that no gap is filled."""
    names = [f"{index}.jpg" for index in range(100)]
    before = split({0: names, 1: names}, (0.2, 0.2), seed)
    fewer = [name for index, name in enumerate(names) if index not in removed]
    after = split({0: list(dict.fromkeys([*fewer, *extra])), 1: names}, (0.2, 0.2), seed)
    common = set.union(*before) & set.union(*after)
    assert [part & common for part in before] == [part & common for part in after]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), shares=st.sampled_from(SHARES))
def test_the_shares_are_those_of_independent_draws(seed: int, shares: tuple[float, ...]) -> None:
    names = [f"{index}.jpg" for index in range(2000)]
    parts = split({0: names, 1: names}, shares, seed)
    for part, share in zip(parts, shares, strict=False):
        for count in Counter(label for label, _ in part).values():
            assert abs(count - share * 2000) < 5 * (2000 * share * (1 - share)) ** 0.5


def test_another_seed_gives_another_split() -> None:
    names = [f"{index}.jpg" for index in range(50)]
    assert split({0: names, 1: names}, (0.2,), 0) != split({0: names, 1: names}, (0.2,), 1)


def test_a_class_with_as_many_images_as_parts_is_in_each() -> None:
    for seed in range(50):
        parts = split({0: ["a", "b", "c"], 1: ["a", "b", "c", "d"]}, (0.2, 0.1), seed)
        assert [sum(label == 0 for label, _ in part) for part in parts] == [1, 1, 1]


def test_a_class_with_fewer_images_than_parts_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        split({0: ["a", "b", "c"], 1: ["a", "b"]}, (0.2, 0.1))
    assert str(caught.value) == (
        "class 'dog' has 2 images, fewer than the 3 splits; add images or give val and test folders"
    )
