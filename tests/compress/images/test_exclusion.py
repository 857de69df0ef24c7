"""Exclusion of unreadable images and of copies of test and val images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from consoles import RecordingConsole
from PIL import Image

from compress.images.copies import digest
from compress.images.exclusion import examine, without
from compress.images.oddities import NARROW
from compress.images.samples import SPLITS, Data, Rejected, Sample
from runtimes.console import SilentConsole
from runtimes.errors import InputError


def test_unreadable_images_are_excluded_and_listed(damaged: Data) -> None:
    console = RecordingConsole()
    kept = examine(damaged, 0.5, console).data
    assert [(image.name, image.split) for image in kept.rejected] == [
        ("train3", "train"),
        ("train7", "train"),
        ("test2", "test"),
    ]
    assert all("not a readable image" in image.reason for image in kept.rejected)
    assert [len(kept.split(split)) for split in SPLITS] == [8, 2, 3, 0]
    assert not {image.name for image in kept.rejected} & {sample.name for sample in (*kept.train, *kept.test)}
    assert console.events[-1] == ("check images", 16, 16)


def test_readable_data_is_unchanged(damaged: Data) -> None:
    good = replace(damaged, train=damaged.train[:3], test=damaged.test[:2])
    assert examine(good, 0.0, SilentConsole()).data == good


def test_as_many_unreadable_images_as_the_limit_are_allowed(damaged: Data) -> None:
    assert len(examine(damaged, 3 / 16, SilentConsole()).data.rejected) == 3


def test_more_unreadable_images_than_the_limit_are_an_error(damaged: Data) -> None:
    with pytest.raises(InputError) as caught:
        examine(damaged, 0.1, SilentConsole())
    message = str(caught.value)
    assert message.startswith(
        "3 of 16 images can't be read, more than max_unreadable_images: 0.1 allows; the first: test2 ("
    )
    assert "test2.png: not a readable image" in message


def test_a_split_without_a_readable_image_is_an_error(damaged: Data) -> None:
    broken = replace(damaged, train=damaged.train[:3], test=damaged.test[2:3])
    with pytest.raises(
        InputError, match=r"^no image of the split 'test' can be used; the first: test2: .*test2\.png: "
    ):
        examine(broken, 1.0, SilentConsole())


def test_the_error_about_an_empty_split_names_an_image_of_that_split(damaged: Data) -> None:
    broken = replace(damaged, test=damaged.test[2:3])
    with pytest.raises(
        InputError, match=r"^no image of the split 'test' can be used; the first: test2: .*test2\.png: "
    ):
        examine(broken, 1.0, SilentConsole())


def test_a_class_without_a_readable_image_is_an_error(damaged: Data) -> None:
    broken = replace(damaged, train=damaged.train[2:4])  # the only image of class b is unreadable
    with pytest.raises(InputError, match="'b'"):
        examine(broken, 1.0, SilentConsole())


def test_a_calibration_folder_without_a_readable_image_is_an_error(damaged: Data) -> None:
    broken = replace(damaged, calibration=(replace(damaged.train[3], label=None),))
    with pytest.raises(InputError, match="'calibration'"):
        examine(broken, 1.0, SilentConsole())


def test_an_image_is_rejected_only_from_its_split(damaged: Data) -> None:
    both = replace(damaged, val=(*damaged.val, damaged.train[0]))
    kept = without(both, (Rejected("train0", "train", "why"),))
    assert "train0" not in {sample.name for sample in kept.train}
    assert "train0" in {sample.name for sample in kept.val}


def with_copies(data: Data, **copies: tuple[str, int]) -> Data:
    """Return readable data where the named image of each split has the bytes of the test image of that index."""
    good = replace(
        data, train=tuple(data.train[index] for index in (0, 1, 2, 4, 5)), test=(*data.test[:2], data.test[3])
    )
    for split, (name, index) in copies.items():
        original = good.test[index].source
        assert isinstance(original, Path)
        changed = tuple(
            replace(sample, source=original.read_bytes()) if sample.name == name else sample
            for sample in good.split(split)
        )
        good = replace(good, **{split: changed})
    return good


def test_copies_of_test_images_are_excluded_from_train_and_do_not_count_as_unreadable(damaged: Data) -> None:
    kept = examine(with_copies(damaged, train=("train0", 0)), 0.0, SilentConsole()).data
    assert kept.rejected == (Rejected("train0", "train", "identical to the test image test0"),)
    assert [sample.name for sample in kept.train] == ["train1", "train2", "train4", "train5"]
    assert len(kept.test) == 3
    assert kept.doubts == ()


def test_a_calibration_image_that_is_a_test_image_is_excluded(damaged: Data) -> None:
    good = with_copies(damaged)
    calibration = (
        Sample("calibration/a", good.test[1].source, None),
        Sample("calibration/b", good.train[0].source, None),
    )
    kept = examine(replace(good, calibration=calibration), 0.0, SilentConsole()).data
    assert kept.rejected == (Rejected("calibration/a", "calibration", "identical to the test image test1"),)
    assert [sample.name for sample in kept.calibration] == ["calibration/b"]  # may be a training image


def test_copies_with_other_labels_are_doubtful(damaged: Data) -> None:
    kept = examine(with_copies(damaged, train=("train1", 0)), 0.0, SilentConsole()).data
    assert [image.name for image in kept.rejected] == ["train1"]
    assert kept.doubts == (
        "equal images in different classes, so that a label is wrong: 1, for example test0 and train1 (a, b)",
    )


def test_a_class_that_holds_only_copies_is_an_error_with_its_cure(damaged: Data) -> None:
    with pytest.raises(InputError) as caught:
        examine(with_copies(damaged, val=("val1", 1)), 0.0, SilentConsole())
    assert str(caught.value) == (
        "no image of the class 'b' in the split 'val' can be used; the first of the split: val1: identical to the test "
        "image test1; repair the files, or give images that are in no other split"
    )


def test_the_digests_are_those_of_the_kept_train_and_val_images(damaged: Data) -> None:
    good = with_copies(damaged, train=("train0", 0))
    digests = examine(good, 0.0, SilentConsole()).digests
    files = {split: [sample.source for sample in good.split(split) if sample.name != "train0"] for split in digests}
    assert list(digests) == ["train", "val"]
    for split, sources in files.items():
        assert digests[split].tolist() == [digest(source.read_bytes()) for source in sources]  # type: ignore[union-attr]


def test_odd_images_are_kept_and_named(damaged: Data, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 9000, np.uint16)).save(tmp_path / "dark.png")
    good = with_copies(damaged)
    kept = examine(replace(good, train=(*good.train, Sample("dark.png", tmp_path / "dark.png", 0))), 0, SilentConsole())
    assert kept.data.rejected == ()
    assert kept.data.doubts == (f"{NARROW}: 1, for example dark.png",)
