"""Images with equal bytes: leaks between splits, labels that contradict each other, repeated test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.images.copies import DIGEST, ORDER, Copies, Member, digest, digests_of, find_copies
from compress.images.samples import Rejected, Sample

CLASSES = ("cat", "dog")


def copies(*images: tuple[str, str, bytes, int | None]) -> Copies:
    """Return the copies among (split, name, bytes, label)."""
    members = [Member(split, Sample(name, content, label)) for split, name, content, label in images]
    return find_copies(members, np.asarray([digest(content) for *_, content, _ in images], DIGEST), CLASSES)


def test_a_leak_names_the_test_image_before_the_val_image() -> None:
    found = copies(("test", "t", b"a", 0), ("val", "v", b"a", 0), ("train", "x", b"a", 0), ("train", "y", b"b", 0))
    assert found.leaks == (
        Rejected("v", "val", "identical to the test image t"),
        Rejected("x", "train", "identical to the test image t"),
    )
    assert found.doubts() == ()


def test_val_images_in_train_and_calibration_are_leaks() -> None:
    found = copies(("val", "v", b"a", 0), ("train", "x", b"a", 0), ("calibration", "c", b"a", None))
    assert [(image.name, image.reason) for image in found.leaks] == [
        ("x", "identical to the val image v"),
        ("c", "identical to the val image v"),
    ]


def test_copies_within_train_and_between_train_and_calibration_are_no_leaks() -> None:
    assert copies(("train", "x", b"a", 0), ("train", "y", b"a", 0), ("calibration", "c", b"a", None)) == Copies()


def test_equal_images_in_two_classes_are_named_with_both() -> None:
    found = copies(("train", "x", b"a", 0), ("train", "y", b"a", 1), ("train", "z", b"a", 1))
    assert found.contradictions == ("x and y (cat, dog)", "x and z (cat, dog)")
    assert found.doubts()[0].startswith("equal images in different classes, so that a label is wrong: 2, for example x")


def test_a_repeated_test_image_is_named() -> None:
    found = copies(("test", "s", b"a", 0), ("test", "t", b"a", 0))
    assert found.repeated == ("s and t",)
    assert "intervals are too narrow: 1, for example s and t" in found.doubts()[0]


def test_images_that_cannot_be_read_are_no_copies(tmp_path: Path) -> None:
    members = [Member("test", Sample("a", tmp_path / "no", 0)), Member("train", Sample("b", tmp_path / "none", 0))]
    digests = digests_of([member.sample for member in members])
    assert digests.tolist() == [b"", b""]
    assert find_copies(members, digests, CLASSES) == Copies()
    assert find_copies([], digests[:0], CLASSES) == Copies()


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(ORDER), st.integers(0, 5), st.integers(0, 1)), max_size=20))
def test_afterwards_no_judged_image_is_in_a_later_split(drawn: list[tuple[str, int, int]]) -> None:
    ordered = sorted(drawn, key=lambda image: ORDER.index(image[0]))
    images = [(split, str(index), bytes([content]), label) for index, (split, content, label) in enumerate(ordered)]
    leaks = {(image.split, image.name) for image in copies(*images).leaks}  # type: ignore[arg-type]
    kept = [image for image in images if image[:2] not in leaks]
    for position, judged in enumerate(ORDER[:2]):
        later = {content for split, _, content, _ in kept if ORDER.index(split) > position}
        assert not {content for split, _, content, _ in kept if split == judged} & later
    lost = {content for *_, content, _ in images} - {content for *_, content, _ in kept}
    assert not lost
