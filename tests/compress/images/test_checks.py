"""The inspection of a data set: counts, unreadable and CMYK images, problems, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from consoles import RecordingConsole
from PIL import Image
from small_imagenet import SYNSETS, TRUNCATED, in_folders, make_images

from compress.images.checks import Contents, Inspection, contents, imagenet_contents, inspect, tables
from compress.images.samples import Data, LeftOut, Sample
from runtimes.console import SilentConsole


def test_an_imagenet_is_inspected_in_its_own_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = in_folders(tmp_path / "imagenet", make_images())
    (root / "train" / "cats").mkdir()
    console = RecordingConsole()
    inspection = inspect(imagenet_contents(str(root)), console)
    assert inspection.counts == {"train": dict.fromkeys(SYNSETS, 16), "val": dict.fromkeys(SYNSETS, 6)}
    assert {name for name, _ in inspection.unreadable} == set(TRUNCATED)
    assert all("not a readable image" in reason for _, reason in inspection.unreadable)
    assert sorted(inspection.cmyk) == [
        *(f"train/{synset}/{synset}_4.JPEG" for synset in SYNSETS), "val/n02105855/ILSVRC2012_val_00000005.JPEG"
    ]  # fmt: skip
    assert inspection.problems == (
        f"{root}/train/cats: is not named by a synset such as n01440764; move it out of {root}/train",
    )
    assert console.events == [("check images", 64, 66), ("check images", 66, 66)]


def test_other_data_sets_are_inspected_without_empty_splits(stripes: Data) -> None:
    data = Data(stripes.classes, stripes.train, (), (*stripes.test, Sample("bad", b"no image", 0)))
    inspection = inspect(contents(data), SilentConsole())
    assert list(inspection.counts) == ["train", "test"]
    assert sum(inspection.counts["train"].values()) == len(stripes.train)
    assert inspection.counts["test"][stripes.classes[0]] == 6
    assert [name for name, _ in inspection.unreadable] == ["bad"]
    assert inspection.cmyk == inspection.problems == ()


def test_images_without_labels_are_counted_without_a_class() -> None:
    unlabelled = Contents(("a", "b"), {"test": (Sample("x", b"no image", None),)})
    inspection = inspect(unlabelled, SilentConsole())
    assert inspection.counts == {"test": {"a": 0, "b": 0, "": 1}}
    (summary,) = tables(inspection)
    assert summary.rows == (("test", "1", "0", "0", "0"),)


def test_files_that_were_left_out_are_kept(stripes: Data) -> None:
    left_out = (LeftOut("broken link", 2, "a/1.png"),)
    data = Data(stripes.classes, stripes.train, (), (), left_out=left_out, folders={"train": "Training"})
    inspection = inspect(contents(data), SilentConsole())
    assert inspection.left_out == left_out
    assert inspection.notes() == ["train: Training", "left out: 2 files: broken link, for example a/1.png"]


def test_few_classes_are_all_listed() -> None:
    summary, classes = tables(Inspection({"train": {"cat": 3, "dog": 1, "eel": 0}}, (), (), ()))
    assert [column.name for column in summary.columns] == ["split", "images", "classes", "fewest", "most"]
    assert summary.rows == (("train", "4", "2", "1", "3"),)
    assert classes.title == "train: classes"
    assert classes.rows == (("eel", "0"), ("dog", "1"), ("cat", "3"))


def test_of_many_classes_those_with_the_fewest_and_the_most_images_are_listed() -> None:
    counts = {f"class{index:02d}": index + 1 for index in range(20)}
    _, fewest, most = tables(Inspection({"val": counts}, (), (), ()))
    assert fewest.title == "val: classes with the fewest images"
    assert [count for _, count in fewest.rows] == ["1", "2", "3", "4", "5"]
    assert most.title == "val: classes with the most images"
    assert [count for _, count in most.rows] == ["20", "19", "18", "17", "16"]


def test_many_classes_of_equal_size_are_not_listed() -> None:
    assert len(tables(Inspection({"val": dict.fromkeys(map(str, range(20)), 7)}, (), (), ()))) == 1


def test_copies_and_similar_images_are_found_across_splits(tmp_path: Path) -> None:
    def picture(name: str, seed: int, label: int, **options: int) -> Sample:
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC).save(tmp_path / name, **options)
        return Sample(name, tmp_path / name, label)

    data = Data(
        ("cat", "dog"),
        train=(
            picture("a.png", 1, 0),
            picture("b.jpg", 2, 0, quality=75),
            picture("c.png", 3, 1),
            picture("d.png", 4, 1),
        ),
        val=(picture("v.png", 5, 0), picture("w.png", 3, 0)),
        test=(picture("s.png", 1, 0), picture("t.png", 2, 1), picture("u.png", 6, 1), picture("x.png", 6, 1)),
    )
    inspection = inspect(contents(data), SilentConsole())
    assert set(inspection.copies) == {
        ("a.png", "identical to the test image s.png"),
        ("c.png", "identical to the val image w.png"),
    }
    assert inspection.contradictions == ("w.png and c.png (cat, dog)",)
    assert inspection.repeated == ("u.png and x.png",)
    (line,) = inspection.similar
    assert line.startswith("t.png and b.jpg (")
