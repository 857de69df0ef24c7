"""Folders of class folders: splits, classes, calibration, and errors."""

from __future__ import annotations

import importlib.util
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from compress.data import imagefolder
from compress.data.imagefolder import Config, load
from compress.images.samples import SPLITS, Data
from runtimes.errors import InputError, UnavailableError

MakeTree = Callable[..., Path]


def names(data: Data, split: str) -> list[str]:
    return [sample.name for sample in data.split(split)]


def per_class(data: Data, split: str) -> dict[int | None, int]:
    return Counter(sample.label for sample in data.split(split))


def test_a_root_with_all_splits_is_not_split(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train/dog": 3, "train/cat": 2, "val/cat": 1, "val/dog": 1, "test/cat": 1, "test/dog": 2})
    data = load(Config(root=root))
    assert data.classes == ("cat", "dog")
    assert [(sample.name, sample.label, sample.source) for sample in data.test] == [
        ("test/cat/0.png", 0, root / "test/cat/0.png"),
        ("test/dog/0.png", 1, root / "test/dog/0.png"),
        ("test/dog/1.png", 1, root / "test/dog/1.png"),
    ]
    assert [len(data.split(split)) for split in ("train", "val", "test", "calibration")] == [5, 2, 3, 0]


def test_class_folders_are_split_by_the_seed(make_tree: MakeTree) -> None:
    root = make_tree("r", {"cat": 20, "dog": 40})
    data = load(Config(root=root))
    assert [per_class(data, split) for split in ("test", "val", "train")] == [
        {0: 5, 1: 9},
        {0: 1, 1: 4},
        {0: 14, 1: 27},
    ]
    everything = names(data, "train") + names(data, "val") + names(data, "test")
    assert sorted(everything) == sorted(f"{path.parent.name}/{path.name}" for path in root.rglob("*.png"))
    assert load(Config(root=root)) == data
    assert names(load(Config(root=root, seed=1)), "test") != names(data, "test")


def test_added_and_removed_images_move_no_other(make_tree: MakeTree, write_image: Callable[..., Path]) -> None:
    root = make_tree("r", {"cat": 40, "dog": 40})
    before = {name: split for split in SPLITS for name in names(load(Config(root=root)), split)}
    write_image(root / "cat" / "00.png")
    write_image(root / "dog" / "new" / "1.png")
    (root / "cat" / "7.png").unlink()
    after = {name: split for split in SPLITS for name in names(load(Config(root=root)), split)}
    assert set(after) - set(before) == {"cat/00.png", "dog/new/1.png"}
    assert set(before) - set(after) == {"cat/7.png"}
    assert all(before[name] == after[name] for name in before.keys() & after.keys())


def test_a_train_folder_is_split_like_a_root_of_class_folders(make_tree: MakeTree) -> None:
    direct = load(Config(root=make_tree("direct", {"cat": 30, "dog": 30})))
    in_train = load(Config(root=make_tree("in-train", {"train/cat": 30, "train/dog": 30})))
    for split in SPLITS:
        assert [name.removeprefix("train/") for name in names(in_train, split)] == names(direct, split)


def test_composed_and_decomposed_names_are_in_the_same_split(
    make_tree: MakeTree, write_image: Callable[..., Path]
) -> None:
    roots = {form: make_tree(form, {"cat": 3, "dog": 3}) for form in ("NFC", "NFD")}
    for form, root in roots.items():
        for index in range(20):
            write_image(root / "cat" / unicodedata.normalize(form, f"é{index}.png"))  # type: ignore[arg-type]
    one, other = (load(Config(root=root)) for root in roots.values())
    assert [names(one, split) for split in SPLITS] == [names(other, split) for split in SPLITS]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "r", "calibration": "r/test"}, "{}/r/test: the folder of test is that of calibration or lies in it"),
        (
            {"root": "r", "calibration": "r/test/cat"},
            "{}/r/test/cat: the folder of calibration is that of test or lies",
        ),
        ({"root": "r", "calibration": "link"}, "{}/r/test: the folder of test is that of calibration or lies in it"),
        ({"root": "r", "calibration": "r"}, "{}/r/val: the folder of val is that of calibration or lies in it"),
        ({"root": "r", "calibration": "r/val"}, "{}/r/val: the folder of val is that of calibration or lies in it"),
        ({"root": "r", "val": "link"}, "{}/link: the folder of val is that of test or lies in it"),
        ({"root": "r", "test": "r/train"}, "{}/r/train: the folder of train is that of test or lies in it"),
        (
            {"root": "classes", "calibration": "classes"},
            "{}/classes: the folder of train is that of calibration or lies",
        ),
        (
            {"root": "classes", "calibration": "classes/cat"},
            "{}/classes/cat: the folder of calibration is that of train",
        ),
        ({"train": "classes", "test": "classes"}, "{}/classes: the folder of train is that of test or lies in it"),
    ],
)
def test_the_folders_of_splits_must_be_separate(
    make_tree: MakeTree, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    make_tree("r", {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("cat", "dog")})
    make_tree("classes", {"cat": 12, "dog": 12})
    (tmp_path / "link").symlink_to(tmp_path / "r" / "test")
    with pytest.raises(InputError) as caught:
        load(Config(**{key: tmp_path / value for key, value in settings.items()}))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message.replace("{}", str(tmp_path)))
    assert ("remove data.calibration" in str(caught.value)) == ("calibration" in settings)


def test_the_training_folder_may_be_calibrated_on(make_tree: MakeTree) -> None:
    root = make_tree("r", {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("cat", "dog")})
    assert len(load(Config(root=root, calibration=root / "train")).calibration) == 6


def test_the_shares_can_be_chosen(make_tree: MakeTree) -> None:
    data = load(Config(root=make_tree("r", {"cat": 20, "dog": 20}), test_share=0.1, val_share=0.4))
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [18, 17, 5]


def test_val_and_test_are_split_off_a_single_train_folder(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train/cat": 20, "train/dog": 20})
    data = load(Config(root=root))
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [27, 2, 11]


def test_only_the_missing_split_is_split_off_train(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train/cat": 20, "train/dog": 20, "test/cat": 1, "test/dog": 1})
    data = load(Config(root=root))
    assert names(data, "test") == ["test/cat/0.png", "test/dog/0.png"]
    assert [len(data.split(split)) for split in ("train", "val")] == [35, 5]


def test_single_folders_replace_those_in_root(make_tree: MakeTree) -> None:
    root = make_tree("r", {f"{split}/{name}": 2 for split in ("train", "val", "test") for name in ("cat", "dog")})
    other = make_tree("other", {"cat": 1, "dog": 3})
    data = load(Config(root=root, test=other))
    assert {sample.source.parent.parent for sample in data.test} == {other}  # type: ignore[union-attr]
    assert per_class(data, "test") == {0: 1, 1: 3}
    assert per_class(data, "train") == {0: 2, 1: 2}


def test_separate_folders_need_no_root(make_tree: MakeTree) -> None:
    folders = {split: make_tree(f"of-{split}", {"cat": 2, "dog": 2}) for split in ("train", "val", "test")}
    data = load(Config(**folders))  # type: ignore[arg-type]
    assert names(data, "val") == ["val/cat/0.png", "val/cat/1.png", "val/dog/0.png", "val/dog/1.png"]
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [4, 4, 4]


def test_a_single_test_folder_is_enough_to_measure(make_tree: MakeTree) -> None:
    data = load(Config(test=make_tree("t", {"cat": 2, "dog": 1})))
    assert data.classes == ("cat", "dog")
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [0, 0, 3]


def test_images_are_found_at_any_depth_and_in_any_case(make_tree: MakeTree, write_image: Callable[..., Path]) -> None:
    root = make_tree("t", {"cat": 1, "dog": 1})
    write_image(root / "cat" / "2024" / "may" / "b.JPG")
    (root / "cat" / "notes.txt").write_text("no image")
    (root / ".cache").mkdir()
    assert names(load(Config(test=root)), "test") == ["test/cat/0.png", "test/cat/2024/may/b.JPG", "test/dog/0.png"]


def test_a_class_file_gives_the_order_and_may_name_further_classes(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree("t", {"cat": 1, "dog": 1})
    (tmp_path / "classes.txt").write_text("dog\n\nbird\n cat \n")
    data = load(Config(test=root, classes=tmp_path / "classes.txt"))
    assert data.classes == ("dog", "bird", "cat")
    assert [(sample.name, sample.label) for sample in data.test] == [("test/cat/0.png", 2), ("test/dog/0.png", 0)]


def test_a_folder_may_be_named_by_its_class_index(make_tree: MakeTree, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dog\nbird\ncat\n")
    data = load(Config(test=make_tree("t", {"2": 1, "0": 1}), classes=tmp_path / "classes.txt"))
    assert [(sample.name, sample.label) for sample in data.test] == [("test/0/0.png", 0), ("test/2/0.png", 2)]


def test_a_class_name_of_digits_goes_before_an_index(make_tree: MakeTree) -> None:
    data = load(Config(test=make_tree("t", {"10": 1, "9": 1, "1": 1})))
    assert data.classes == ("1", "10", "9")
    assert {sample.name: sample.label for sample in data.test} == {
        "test/1/0.png": 0,
        "test/10/0.png": 1,
        "test/9/0.png": 2,
    }


def test_imagenet_knows_synsets_and_indices(make_tree: MakeTree) -> None:
    data = load(Config(test=make_tree("t", {"n01440764": 1, "n15075141": 1, "317": 1}), classes="imagenet"))
    assert len(data.classes) == 1000
    assert data.classes[207] == "n02099601"  # golden retriever
    assert [(sample.name, sample.label) for sample in data.test] == [
        ("test/317/0.png", 317),
        ("test/n01440764/0.png", 0),
        ("test/n15075141/0.png", 999),
    ]


def test_imagenet_without_timm_names_the_package(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree("t", {"0": 1})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"^ImageNet's classes are in the package timm: pip install timm$"):
        load(Config(test=root, classes="imagenet"))


def test_calibration_images_need_no_labels(make_tree: MakeTree, write_image: Callable[..., Path]) -> None:
    root = make_tree("r", {"cat": 4, "dog": 4})
    photos = make_tree("photos", {"sub": 1})
    write_image(photos / "a.jpg")
    data = load(Config(root=root, calibration=photos))
    assert [(sample.name, sample.label) for sample in data.calibration] == [
        ("calibration/a.jpg", None),
        ("calibration/sub/0.png", None),
    ]


def test_index_beyond_the_classes_is_unknown(make_tree: MakeTree) -> None:
    root = make_tree("t", {"1000": 1})
    with pytest.raises(InputError, match=r"1000: no class of that name; there are n01440764, .*, …$"):
        load(Config(test=root, classes="imagenet"))


@pytest.mark.parametrize(
    ("tree", "settings", "message"),
    [
        ({}, {"root": "nowhere"}, "data.root: {}/nowhere: no such folder"),
        ({}, {"test": "nowhere"}, "data.test: {}/nowhere: no such folder"),
        (
            {"r/cat": 4, "r/dog": 4},
            {"root": "r", "calibration": "nowhere"},
            "data.calibration: {}/nowhere: no such folder",
        ),
        ({"r/cat": 4, "r/dog": 4}, {"root": "r", "classes": "no.txt"}, "data.classes: {}/no.txt: no such file"),
        ({"r": 2}, {"root": "r"}, "{}/r: must hold at least 2 classes, has 0"),
        ({"r/cat": 3}, {"root": "r"}, "{}/r: must hold at least 2 classes, has 1"),
        (
            {"r/cat": 3, "r/dog": 0},
            {"root": "r"},
            "{}/r/dog: class 'dog' has no images; add some or remove the folder",
        ),
        (
            {"r/cat": 9, "r/dog": 2},
            {"root": "r"},
            "class 'dog' has 2 images, fewer than the 3 splits; add images or give val and test folders",
        ),
        (
            {"r/train/cat": 3, "r/train/dog": 3, "r/val/cat": 1, "r/test/fish": 1},
            {"root": "r"},
            "{}/r/test/fish: no class of that name; there are cat, dog",
        ),
        (
            {"r/val/cat": 3, "r/test/cat": 3},
            {"root": "r"},
            "{}/r/test: must hold at least 2 classes, has 1",
        ),
        (
            {"r/cat": 4, "r/dog": 4, "photos": 0},
            {"root": "r", "calibration": "photos"},
            "{}/photos: holds no images to calibrate on",
        ),
        (
            {"r/train/cat": 3, "r/train/dog": 3, "r/val/cat": 1, "empty": 0},
            {"root": "r", "test": "empty"},
            "{}/empty: holds no class folders; expected {}/empty/CLASS/image.jpg",
        ),
    ],
)
def test_wrong_folders_raise_one_line(
    make_tree: MakeTree, tmp_path: Path, tree: dict[str, int], settings: dict[str, str], message: str
) -> None:
    make_tree(".", tree)
    paths = {key: tmp_path / value for key, value in settings.items()}
    with pytest.raises(InputError) as caught:
        load(Config(**paths))  # type: ignore[arg-type]
    assert str(caught.value) == message.replace("{}", str(tmp_path))


@pytest.mark.parametrize("content", ["cat\n", "", "cat\ncat\n"])
def test_a_class_file_must_name_different_classes(make_tree: MakeTree, tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(
        InputError, match=r"classes\.txt: (must hold at least 2 classes, has [01]|names the class 'cat' twice)$"
    ):
        load(Config(test=make_tree("t", {"cat": 1}), classes=tmp_path / "classes.txt"))


def test_a_class_file_that_is_not_utf_8_raises(make_tree: MakeTree, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes("cat\nchién\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes\.txt"):
        load(Config(test=make_tree("t", {"cat": 1}), classes=tmp_path / "classes.txt"))


def test_a_class_file_from_notepad_is_read(make_tree: MakeTree, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8-sig")
    data = load(Config(test=make_tree("t", {"cat": 1}), classes=tmp_path / "classes.txt"))
    assert data.classes == ("cat", "dog")


@pytest.mark.parametrize("settings", [{"train": "r", "test": "r"}, {"root": "r", "test": "r"}])
def test_no_file_is_in_two_splits(make_tree: MakeTree, tmp_path: Path, settings: dict[str, str]) -> None:
    make_tree("r", {"cat": 12, "dog": 12})
    try:
        data = load(Config(**{key: tmp_path / value for key, value in settings.items()}))  # type: ignore[arg-type]
    except InputError:
        return
    assert not {sample.source for sample in data.train} & {sample.source for sample in data.test}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs root, train or test; for example --set data.root=/data/flowers"),
        ({"calibration": "photos"}, "needs root, train or test"),
        ({"root": "r", "val_share": 0.5}, "less than 0.5"),
        ({"root": "r", "test_share": 0}, "greater than 0"),
        ({"root": "r", "rooot": "r"}, "Extra inputs"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(**settings)  # type: ignore[arg-type]


def test_the_word_imagenet_is_not_a_path() -> None:
    assert imagefolder.Config(test=Path("t"), classes="imagenet").classes == "imagenet"
    assert imagefolder.Config.model_validate({"test": "t", "classes": "a.txt"}).classes == Path("a.txt")


def test_a_test_folder_without_class_folders_has_no_labels(make_tree: MakeTree, tmp_path: Path) -> None:
    make_tree("photos", {"": 3})
    names = tmp_path / "classes.txt"
    names.write_text("cat\ndog\n")
    data = load(Config(test=tmp_path / "photos", classes=names))
    assert [sample.label for sample in data.test] == [None] * 3
    assert data.classes == ("cat", "dog")
