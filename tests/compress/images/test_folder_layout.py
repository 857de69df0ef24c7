"""Folders of splits and classes: usual names, and what is refused because it may be either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compress.images.folder_layout import recognize, require_classes, split_folders
from compress.images.folders import FolderWalk, LeftOutFiles
from compress.images.samples import LeftOut
from runtimes.errors import InputError

MakeTree = Callable[..., Path]


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAIN training Training trn train_set trainset TrainingSet training-data train_images "
                  "images_train train2017 01_train Train-Images traindata"),
        ("val", "val Val valid Valid validation Validation dev validation_set valset val2017 02-valid ValidImages"),
        ("test", "test Test testing Testing tst testset test_images TestData images-test"),
    ],
)  # fmt: skip
def test_usual_names_of_splits_are_recognized(split: str, names: str) -> None:
    for name in names.split():
        assert recognize([name, "cat"]) == {name: split}


@pytest.mark.parametrize("names", [["seg_train", "seg_test"], ["flowers-Train", "flowers-Test"], ["aTrain", "aTest"]])
def test_names_that_differ_only_in_the_split_are_recognized(names: list[str]) -> None:
    assert recognize([*names, "seg_pred"]) == {names[0]: "train", names[1]: "test"}


@pytest.mark.parametrize(
    "names",
    [
        ["bullet_train", "steam_engine"], ["train_station", "bus_station"], ["test_tube", "beaker"], ["0", "1"],
        ["invalid", "broken"], ["strain", "contest"], ["train_val", "other"], ["bullet_train", "blood_test"],
    ],
)  # fmt: skip
def test_names_of_classes_are_no_splits(names: list[str]) -> None:
    assert recognize(names) == {}


def test_split_folders_are_found_in_any_case(make_tree: MakeTree) -> None:
    root = make_tree("r", {"Testing/cat": 1, "Training/cat": 1, "annotations": 0, "": 1})
    (root / "annotations" / "a.xml").write_text("")
    (root / "README.md").write_text("")
    left_out = LeftOutFiles()
    assert split_folders(root, {}, left_out) == {"train": root / "Training", "test": root / "Testing"}
    assert set(left_out.all()) == {
        LeftOut("in a folder beside the splits", 1, f"{root}/annotations/a.xml"),
        LeftOut("image outside the class folders", 1, f"{root}/0.png"),
        LeftOut("extension .md, which can't be read as an image", 1, f"{root}/README.md"),
    }


def test_a_root_of_classes_has_no_splits(make_tree: MakeTree) -> None:
    left_out = LeftOutFiles()
    assert split_folders(make_tree("r", {"cat": 1, "dog": 1, "": 1}), {}, left_out) == {}
    assert not left_out.all()


@pytest.mark.parametrize("other", ["validate", "Meta", "cat", "eval", "holdout", "unlabeled/deep"])
def test_images_beside_the_splits_are_refused_or_counted(make_tree: MakeTree, other: str) -> None:
    root = make_tree("r", {"train/cat": 1, "train/dog": 1, other: 2})
    name = other.partition("/")[0]
    with pytest.raises(InputError, match=rf"r/{name}: holds images, but .* of them are classes: data.train: "):
        split_folders(root, {}, LeftOutFiles())
    left_out = LeftOutFiles()
    given = {"train": root / "train"}
    assert split_folders(root, given, left_out) == given
    assert left_out.all() == (LeftOut("in a folder beside the splits", 2, f"{root}/{other}/0.png"),)


def test_given_folders_replace_those_in_root_and_may_have_any_name(make_tree: MakeTree) -> None:
    tree = {"train": 1, "val": 1, "validation": 1, "holdout": 1, "photos": 1, "test": 2}
    root = make_tree("r", {f"{name}/cat": count for name, count in tree.items()})
    given = {"val": root / "validation", "test": root / "holdout", "calibration": root / "photos"}
    left_out = LeftOutFiles()
    assert split_folders(root, given, left_out) == {"train": root / "train", **given}
    assert set(left_out.all()) == {
        LeftOut("in a folder of root that data.test replaces", 2, f"{root}/test/cat/0.png"),
        LeftOut("in a folder of root that data.val replaces", 1, f"{root}/val/cat/0.png"),
    }
    assert set(split_folders(make_tree("s", {"train/a": 1}), {"calibration": root / "train"}, left_out)) == {
        "train", "calibration"
    }  # fmt: skip


@pytest.mark.parametrize("pair", [("train", "Train"), ("val", "valid"), ("test", "test_set"), ("train_1", "train_2")])
def test_two_folders_of_one_split_are_refused(make_tree: MakeTree, pair: tuple[str, str]) -> None:
    root = make_tree("r", {f"{pair[0]}/cat": 1, f"{pair[1]}/cat": 1})
    with pytest.raises(InputError, match=r" and .* both look like (train|val|test); move one"):
        split_folders(root, {}, LeftOutFiles())


@pytest.mark.parametrize(
    ("tree", "may_be_splits", "message"),
    [
        ({"cat/train": 1, "dog/train": 1}, False, "cat/train: looks like a split inside a class; move it to ROOT"),
        ({"cat": 2, "cat/Test": 1, "dog": 2}, False, "cat/Test: looks like a split inside a class"),
        ({"cat": 1, "dog": 1, "pets/cat": 1, "pets/dog": 1}, False, "pets/cat: has the name of the folder cat"),
        ({"cat": 1, "dog": 1, "cat/dog": 1}, False, "cat/dog: has the name of the folder dog beside cat"),
        ({"train/cat": 1, "test/cat": 1}, False, "holds folders of splits, not of classes; give it as data.root"),
        ({"fold1/cat": 1, "fold1/dog": 1, "fold2/cat": 1, "fold2/dog": 1}, True,
         "fold1, fold2 all hold the folders cat, dog, so that either may be the classes; if the former are"),
        ({"训练/a": 1, "训练/b": 1, "测试/a": 1}, True,
         "测试, 训练 all hold the folder a, so that either may be the classes; if the former are"),
    ],
)  # fmt: skip
def test_what_may_be_no_class_is_refused(
    make_tree: MakeTree, tree: dict[str, int], may_be_splits: bool, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        require_classes(FolderWalk(make_tree("r", tree)), may_be_splits=may_be_splits)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "tree",
    [
        {"cat": 1, "dog": 1},
        {"bus": 1, "train": 1},
        {"cat/2024/may": 1, "dog/2024": 1, "dog": 1},
        {"cat/images": 1, "dog/images": 1},
        {"cat/cat": 1, "dog/dog": 1},
        {"train": 1, "test": 1},
    ],
)
def test_classes_are_accepted(make_tree: MakeTree, tree: dict[str, int]) -> None:
    require_classes(FolderWalk(make_tree("r", tree)), may_be_splits=True)
