"""Stratified splits, exclusion of unreadable images, calibration images, evaluation sets, fingerprints."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from consoles import RecordingConsole
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.images import samples
from compress.images.samples import Data, Sample, stratified_split
from runtimes import images
from runtimes.console import SilentConsole
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

WriteImage = Callable[..., Path]
SHARES = [(0.25, 0.1), (0.25,), (0.4, 0.4), (0.1, 0.2, 0.3)]


def samples_of(counts: list[int], strata: int = 1) -> list[tuple[Sample, object]]:
    return [
        (Sample(f"{label}/{index:03d}", b"", label), index % strata)
        for label, count in enumerate(counts)
        for index in range(count)
    ]


def per_class(part: tuple[Sample, ...]) -> Counter[int | None]:
    return Counter(sample.label for sample in part)


def test_classes_without_images_are_named_in_splits_with_labels() -> None:
    classes = tuple(f"class{index}" for index in range(8))
    train = tuple(Sample(str(index), b"", index) for index in range(8))
    data = Data(classes, train, train[:1], (Sample("x", b"", None),))
    assert data.images_per_class()["test"] == {**dict.fromkeys(classes, 0), "": 1}
    assert data.notes() == ["val: no images of 7 of 8 classes: class1, class2, class3, class4, class5, …"]


@pytest.mark.parametrize(("classes", "line"), [
    (("0", "1", "10", "2"), "classes: numbers in the order of text, as in 0, 1, 10, 2: output 2 of the network is "
                            "class 10; a file in data.classes gives another order"),
    (("0", "1", "2", "10"), None), (("0", "1", "2"), None), (("a", "b"), None), (("1", "10", "x"), None),
])  # fmt: skip
def test_numbered_classes_in_the_order_of_text_are_named(classes: tuple[str, ...], line: str | None) -> None:
    train = tuple(Sample(str(index), b"", index) for index in range(len(classes)))
    assert Data(classes, train, train, train).notes() == ([line] if line else [])


@settings(max_examples=100)
@given(
    counts=st.lists(st.integers(4, 40), min_size=2, max_size=5),
    strata=st.integers(1, 6),
    shares=st.sampled_from(SHARES),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_split_is_disjoint_complete_and_has_every_class_everywhere(
    counts: list[int], strata: int, shares: tuple[float, ...], seed: int
) -> None:
    samples = samples_of(counts, strata)
    classes = tuple(str(label) for label in range(len(counts)))
    parts = stratified_split(samples, shares, classes, seed)
    names = [sample.name for part in parts for sample in part]
    assert len(parts) == len(shares) + 1
    assert len(names) == len(set(names))
    assert set(names) == {sample.name for sample, _ in samples}
    for part in parts:
        assert set(per_class(part)) == set(range(len(counts)))
        assert [sample.name for sample in part] == sorted(sample.name for sample in part)
    assert parts == stratified_split(samples, shares, classes, seed)


@settings(max_examples=100)
@given(
    counts=st.lists(st.integers(10, 60), min_size=2, max_size=4),
    strata=st.integers(1, 2),
    shares=st.sampled_from(SHARES),
    seed=st.integers(0, 2**31 - 1),
)
def test_each_stratum_is_divided_by_the_rounded_shares(
    counts: list[int], strata: int, shares: tuple[float, ...], seed: int
) -> None:
    samples = samples_of(counts, strata)
    stratum_of = {sample.name: (sample.label, stratum) for sample, stratum in samples}
    totals = Counter(stratum_of.values())
    parts = stratified_split(samples, shares, tuple(map(str, range(len(counts)))), seed)
    moved = len(parts) * strata  # at most one image for each part that rounding left without the class
    for part, share in zip(parts, shares, strict=False):
        counts_of = Counter(stratum_of[sample.name] for sample in part)
        for stratum, total in totals.items():
            exact = round(share * total) > 0 and sum(round(other * total) for other in shares) < total
            assert abs(counts_of[stratum] - share * total) <= (0.5 if exact else 0.5 + moved)


def test_another_seed_gives_another_split() -> None:
    samples = samples_of([40, 40])
    first, second = (stratified_split(samples, (0.25,), ("a", "b"), seed) for seed in (0, 1))
    assert first != second
    assert [per_class(part) for part in first] == [per_class(part) for part in second]


def test_a_part_without_a_class_after_rounding_gets_one_image_of_it() -> None:
    test, val, train = stratified_split(samples_of([3, 100]), (0.1, 0.1), ("rare", "common"), 0)
    assert [per_class(part) for part in (test, val, train)] == [{0: 1, 1: 10}, {0: 1, 1: 10}, {0: 1, 1: 80}]


def test_a_class_with_fewer_images_than_parts_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        stratified_split(samples_of([9, 2]), (0.25, 0.1), ("cat", "dog"), 0)
    assert str(caught.value) == (
        "class 'dog' has 2 images, fewer than the 3 splits; add images or give val and test folders"
    )


def test_calibration_is_drawn_from_train_by_the_seed(damaged: Data) -> None:
    drawn = samples.draw_calibration(damaged, 4, 0)
    assert len(drawn) == len(set(drawn)) == 4
    assert set(drawn) <= set(damaged.train)
    assert drawn == samples.draw_calibration(damaged, 4, 0)
    assert len({samples.draw_calibration(damaged, 4, seed) for seed in range(5)}) > 1


def test_calibration_is_drawn_from_its_own_folder_if_there_is_one(damaged: Data) -> None:
    own = tuple(Sample(f"c{index}", b"", None) for index in range(3))
    assert samples.draw_calibration(replace(damaged, calibration=own), 100, 0) == own


def test_calibration_needs_images(damaged: Data) -> None:
    with pytest.raises(InputError, match=r"^there are no calibration images: the data set has no train split; give "):
        samples.draw_calibration(replace(damaged, train=()), 4, 0)


def test_an_evaluation_set_holds_the_prepared_images_in_order(
    stripes: Data, small: Preprocessing, tmp_path: Path
) -> None:
    chosen = (stripes.train * 3)[:70]  # more than one chunk
    console = RecordingConsole()
    written = samples.write_evalset(tmp_path, chosen, stripes.classes, small, console, "prepare test images")
    expected = np.stack([images.resize_and_crop(images.decode(sample.source), small) for sample in chosen])
    np.testing.assert_array_equal(written.images, expected)
    assert written.labels is not None
    assert written.labels.tolist() == [sample.label for sample in chosen]
    assert written.names == tuple(sample.name for sample in chosen)
    assert console.events == [("prepare test images", 64, 70), ("prepare test images", 70, 70)]


def test_an_evaluation_set_of_a_calibration_folder_has_no_labels(
    stripes: Data, small: Preprocessing, tmp_path: Path
) -> None:
    chosen = (stripes.train[0], replace(stripes.train[1], label=None))
    assert samples.write_evalset(tmp_path, chosen, stripes.classes, small, SilentConsole()).labels is None


def test_the_fingerprint_depends_on_everything_that_training_uses(damaged: Data) -> None:
    before = damaged.fingerprint()
    assert before == replace(damaged).fingerprint()
    first = damaged.train[0]
    changed = [
        replace(damaged, classes=("b", "a")),
        replace(damaged, train=(replace(first, label=1), *damaged.train[1:])),
        replace(damaged, train=(replace(first, name="other"), *damaged.train[1:])),
        replace(damaged, train=(replace(first, source=b"bytes"), *damaged.train[1:])),
        replace(damaged, train=damaged.train[1:], val=(first, *damaged.val)),
    ]
    assert len({before, *(data.fingerprint() for data in changed)}) == 1 + len(changed)
    assert isinstance(first.source, Path)
    os.utime(first.source, ns=(0, 1))
    assert damaged.fingerprint() != before


def test_splits_json_lists_names_and_labels(damaged: Data) -> None:
    content = damaged.splits_json()
    assert content["classes"] == ("a", "b")
    assert content["val"] == {"val0": 0, "val1": 1}
    assert list(content) == ["classes", *samples.SPLITS]
