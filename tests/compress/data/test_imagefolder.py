"""Folders of class folders: splits, classes, calibration, and errors."""

from __future__ import annotations

import importlib.util
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
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


@pytest.mark.parametrize("names", [None, "1\n2\n3\n"])
def test_a_number_is_no_index_among_classes_with_numbers_as_names(
    make_tree: MakeTree, tmp_path: Path, names: str | None
) -> None:
    root = make_tree("r", {**{f"train/{name}": 3 for name in "123"}, "test/0": 12, "test/1": 1})
    (tmp_path / "classes.txt").write_text(names or "")
    with pytest.raises(InputError, match=r"test/0: no class of that name; there are 1, 2, 3"):
        load(Config(root=root, classes=tmp_path / "classes.txt" if names else None))


def test_a_number_is_no_index_without_a_class_file(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train/cat": 3, "train/dog": 3, "test/0": 1})
    with pytest.raises(InputError, match=r"test/0: .* a number is the index of a class only with data\.classes$"):
        load(Config(root=root))


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
        (
            {"r": 2},
            {"root": "r"},
            "{}/r: must hold at least 2 classes, has 0; move its 2 images to {}/r/CLASS/, one folder per class",
        ),
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
            "{}/r/test/fish: no class of that name; there are cat, dog; if its images have no labels: data.test: "
            "{}/r/test/fish",
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


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def reasons(data: Data) -> dict[str, int]:
    return {files.reason: files.count for files in data.left_out}


def test_files_of_other_tools_are_neither_images_nor_classes(make_tree: MakeTree) -> None:
    clean = load(Config(root=make_tree("r", {"cat": 12, "dog": 12})))
    root = make_tree("r", {"cat/.ipynb_checkpoints": 12, "dog/@eaDir/0.png": 2, "__MACOSX/cat": 3, ".thumbnails": 1})
    (root / "cat" / "._0.png").write_bytes(b"x")
    (root / "dog" / "Thumbs.db").write_bytes(b"x")
    data = load(Config(root=root))
    assert replace(data, left_out=()) == clean
    assert reasons(data) == {
        "in .ipynb_checkpoints, a folder of another tool": 12,
        "in __MACOSX, a folder of another tool": 3,
        "in @eaDir, a folder of another tool": 2,
        "in .thumbnails, a folder of another tool": 1,
        "hidden, or written by another tool": 2,
    }


def test_links_are_read_and_keep_their_names(make_tree: MakeTree, tmp_path: Path) -> None:
    store, root = make_tree("store", {"a": 2, "b": 1}), make_tree("r", {"train/cat": 4, "train/dog": 4, "test/dog": 1})
    (root / "test" / "cat").symlink_to(store / "a", target_is_directory=True)
    (root / "test" / "dog" / "more").symlink_to(store / "b", target_is_directory=True)
    (root / "test" / "dog" / "gone.png").symlink_to(tmp_path / "annex" / "gone.png")
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    data = load(Config(root=tmp_path / "link", val_share=0.4))
    assert [(sample.name, sample.label) for sample in data.test] == [
        ("test/cat/0.png", 0), ("test/cat/1.png", 0), ("test/dog/0.png", 1), ("test/dog/more/0.png", 1)
    ]  # fmt: skip
    assert reasons(data) == {"broken link": 1}
    assert len(data.fingerprint()) == 64


def test_a_broken_link_of_another_file_is_counted(make_tree: MakeTree) -> None:
    root = make_tree("r", {"cat": 9, "dog": 9})
    (root / "labels.csv").symlink_to(".git/annex/objects/x.csv")
    assert reasons(load(Config(root=root))) == {"broken link": 1}


def test_folders_without_images_say_what_they_hold(make_tree: MakeTree) -> None:
    root, photos = make_tree("r", {"train/cat": 9, "train/dog": 9, "test": 0}), make_tree("photos", {"": 0})
    for folder in (root / "test", photos):
        (folder / "a.heic").write_bytes(b"x")
    for config in (Config(root=root), Config(train=root / "train", calibration=photos)):
        with pytest.raises(InputError, match=r"holds no .*; left out: 1 file: extension \.heic, .*a\.heic$"):
            load(config)


@pytest.mark.parametrize("path", ["r/val", "r/train/dog", "r/bird"])
def test_a_broken_link_that_may_be_a_split_or_a_class_is_refused(make_tree: MakeTree, path: str) -> None:
    root = make_tree("r", {"train/cat": 12, "train/eel": 12})
    (root.parent / path).symlink_to("/nowhere", target_is_directory=True)
    with pytest.raises(InputError, match=f"{path}: is a broken link to /nowhere; repair or remove it$"):
        load(Config(root=root))


def test_the_same_folder_in_two_splits_or_classes_is_refused(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train/cat": 12, "train/dog": 12})
    (root / "val").symlink_to(root / "train", target_is_directory=True)
    with pytest.raises(InputError, match="the folder of train is that of val"):
        load(Config(root=root))
    (root / "val").unlink()
    (root / "train" / "wolf").symlink_to(root / "train" / "dog", target_is_directory=True)
    with pytest.raises(InputError, match=r"dog and .*wolf are the same folder"):
        load(Config(root=root))


@pytest.mark.parametrize("extension", ["jfif", "jpe", "avif", "jp2", "tga", "pbm", "dib"])
def test_other_formats_are_read(make_tree: MakeTree, extension: str) -> None:
    root = make_tree("t", {"cat": 1, "dog": 1})
    Image.new("1", (8, 8)).convert("1" if extension == "pbm" else "RGB").save(
        root / "cat" / f"a.{extension}", Image.registered_extensions()[f".{extension}"]
    )
    assert f"test/cat/a.{extension}" in names(load(Config(test=root)), "test")


def test_formats_that_can_not_be_read_are_counted(make_tree: MakeTree) -> None:
    root = make_tree("t", {"cat": 1, "dog": 1, "eel": 0, "": 1})
    for name in ("cat/a.heic", "dog/b.HEIC", "dog/notes.txt", "dog/none"):
        (root / name).write_bytes(b"x")
    (root / "eel" / "c.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"'eel' has no images; .*; left out: 1 file: extension \.heic, .*c\.heic$"):
        load(Config(test=root))
    (root / "eel" / "c.heic").unlink()
    (root / "eel").rmdir()
    assert reasons(load(Config(test=root))) == {
        "extension .heic, which can't be read as an image": 2,
        "extension .txt, which can't be read as an image": 1,
        "no extension": 1,
        "image outside the class folders": 1,
    }


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "valid", "test"), ("Train", "Val", "Test"), ("Training", "validation", "Testing"),
     ("train_set", "val_set", "test_set"), ("seg_train", "seg_dev", "seg_test")],
)  # fmt: skip
def test_usual_names_of_splits_are_recognized_and_reported(
    make_tree: MakeTree, train: str, val: str, test: str
) -> None:
    root = make_tree("r", {f"{split}/{name}": 2 for split in (train, val, test) for name in ("cat", "dog")})
    data = load(Config(root=root))
    assert names(data, "val") == ["val/cat/0.png", "val/cat/1.png", "val/dog/0.png", "val/dog/1.png"]
    assert data.folders == {"train": f"{root}/{train}", "val": f"{root}/{val}", "test": f"{root}/{test}"}


def test_splits_that_are_cut_from_train_are_reported(make_tree: MakeTree) -> None:
    root = make_tree("r", {"Training/cat": 20, "Training/dog": 20, "Testing/cat": 1, "Testing/dog": 1})
    data = load(Config(root=root, calibration=make_tree("photos", {"": 1})))
    assert data.folders == {
        "train": f"{root}/Training",
        "val": f"{root}/Training ({len(data.val)} of its 40 images)",
        "test": f"{root}/Testing",
        "calibration": f"{root.parent}/photos",
    }


def test_test_alone_is_the_test_split(make_tree: MakeTree) -> None:
    root = make_tree("r", {"test/cat": 2, "test/dog": 1})
    data = load(Config(root=root))
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [0, 0, 3]
    assert data.folders == {"test": f"{root}/test"}


def test_what_is_neither_split_nor_class_is_refused_and_can_be_settled(make_tree: MakeTree) -> None:
    root = make_tree("r", {"bus": 12, "car": 12, "train": 12})
    with pytest.raises(InputError, match=rf"bus: holds images, but .* classes: data\.train: {root}$"):
        load(Config(root=root))
    for config in (Config(train=root), Config(root=root, train=root)):
        assert load(config).classes == ("bus", "car", "train")
    root = make_tree("gtsrb", {"Train/0": 4, "Train/1": 4, "Test/0": 2, "Meta": 2})
    with pytest.raises(InputError, match=r"Meta: holds images"):
        load(Config(root=root))
    data = load(Config(train=root / "Train", test=root / "Test"))
    assert len(data.train + data.val) == 8
    assert len(data.test) == 2
    data = load(Config(root=root, train=root / "Train"))
    assert reasons(data) == {"in a folder beside the splits": 2}
    assert data.folders["test"] == f"{root}/Test"


def test_a_split_in_root_that_is_replaced_is_counted(make_tree: MakeTree) -> None:
    root = make_tree("r", {f"{split}/{name}": 2 for split in ("train", "val", "test") for name in ("cat", "dog")})
    data = load(Config(root=root, test=make_tree("other", {"cat": 1, "dog": 1})))
    assert reasons(data) == {"in a folder of root that data.test replaces": 4}
    assert load(Config(root=root, test=root / "test")).left_out == ()


def test_a_root_without_splits_beside_train_is_refused(make_tree: MakeTree) -> None:
    root, train = make_tree("r", {"cat": 2, "dog": 2}), make_tree("t", {"cat": 4, "dog": 4})
    with pytest.raises(InputError, match=r"data\.root: .*/r: has no folders train, val or test; remove data\.root or"):
        load(Config(root=root, train=train))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"flowers/cat": 2, "flowers/dog": 2}, "{}: must hold at least 2 classes, has 1; its only folder flowers"),
        ({"flowers/train/cat": 2}, "{}/flowers/train: looks like a split inside a class; give {}/flowers instead"),
        ({"train/train/cat": 2, "train/train/dog": 2},
         "{}/train: must hold at least 2 classes, has 1; its only folder train holds 2: give that folder instead"),
        ({"train/cat": 2, "train/dog": 2, "test/test/cat": 1, "test/test/dog": 1},
         "{}/test/test: no class of that name; there are cat, dog; its only folder test holds 2: give that folder"),
        ({"cat/train": 2, "cat/test": 2, "dog/train": 2, "dog/test": 2}, "{}/cat/test: looks like a split inside a"),
        ({f"train/{name}/{kind}": 2 for name in ("sick", "well") for kind in ("images", "masks")},
         "{}/train: sick, well all hold the folders images, masks, so that either may be the classes"),
        ({"a": 2, "b": 2, "pets/a": 2, "pets/b": 2}, "{}/pets/a: has the name of the folder a beside pets"),
        ({"fold1/cat": 2, "fold1/dog": 2, "fold2/cat": 2, "fold2/dog": 2}, "{}: fold1, fold2 all hold the folders cat"),
    ],
)  # fmt: skip
def test_nested_layouts_are_refused_with_their_cure(make_tree: MakeTree, tree: dict[str, int], message: str) -> None:
    root = make_tree("r", tree)
    with pytest.raises(InputError) as caught:
        load(Config(root=root))
    assert str(caught.value).startswith(message.replace("{}", str(root)))


def test_data_train_says_that_folders_of_folders_are_classes(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree("r", {f"{name}/{year}": 6 for name in ("cat", "dog") for year in ("2023", "2024")})
    assert load(Config(train=root)).classes == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert load(Config(root=root, classes=tmp_path / "classes.txt")).classes == ("dog", "cat")


def test_composed_and_decomposed_names_are_one_class(make_tree: MakeTree, tmp_path: Path) -> None:
    tree = {f"train/{COMPOSED}": 3, f"train/{DECOMPOSED}": 2, "train/dog": 5, f"test/{DECOMPOSED}": 1, "test/dog": 1}
    root = make_tree("r", {**tree, f"val/{COMPOSED}": 1, "val/dog": 1})
    data = load(Config(root=root))
    assert data.classes == (COMPOSED, "dog")
    assert per_class(data, "train") == {0: 5, 1: 5}
    assert len(set(names(data, "train"))) == 10
    assert names(data, "test") == [f"test/{COMPOSED}/0.png", "test/dog/0.png"]
    (tmp_path / "classes.txt").write_text(f"dog\n{DECOMPOSED}\n")
    assert load(Config(root=root, classes=tmp_path / "classes.txt")).classes == ("dog", COMPOSED)
    (tmp_path / "classes.txt").write_text(f"{COMPOSED}\n{DECOMPOSED}\n")
    with pytest.raises(InputError, match="names the class 'café' twice"):
        load(Config(root=root, classes=tmp_path / "classes.txt"))


@pytest.mark.parametrize(("wrong", "near"), [("Cat", "cat"), ("cats", "cat"), (" dog", "dog"), ("DOG", "dog")])
def test_an_unknown_class_is_refused_with_the_nearest(make_tree: MakeTree, wrong: str, near: str) -> None:
    root = make_tree("r", {"train/cat": 3, "train/dog": 3, f"val/{wrong}": 1})
    with pytest.raises(InputError, match=f"val/{wrong}: no class of that name; .*; did you mean '{near}'"):
        load(Config(root=root))


def test_a_class_without_images_in_a_split_is_named(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train/cat": 9, "train/dog": 9, "test/cat": 2, "val/cat": 1, "val/dog": 1})
    assert load(Config(root=root)).notes()[-1] == "test: no images of 1 of 2 classes: dog"


def test_classes_that_differ_only_in_case_are_refused_unless_listed(make_tree: MakeTree, tmp_path: Path) -> None:
    for index, tree in enumerate(({"Cat": 9, "cat": 9}, {"cat ": 9, "cat": 9}, {"ﬁsh": 9, "fish": 9})):
        root = make_tree(f"r{index}", tree)
        with pytest.raises(InputError, match="differ only in case, spaces or form; merge their folders, or list both"):
            load(Config(root=root))
    (tmp_path / "classes.txt").write_text("Cat\ncat\n")
    assert load(Config(root=tmp_path / "r0", classes=tmp_path / "classes.txt")).classes == ("Cat", "cat")
    assert load(Config(root=make_tree("letters", {"A": 9, "a": 9}))).classes == ("A", "a")


def test_folders_in_root_may_be_named_for_test_and_calibration(make_tree: MakeTree) -> None:
    names_of_folders = ("train", "val", "holdout", "photos")
    root = make_tree("r", {f"{name}/{label}": 2 for name in names_of_folders for label in ("cat", "dog")})
    data = load(Config(root=root, test=root / "holdout", calibration=root / "photos"))
    assert [len(data.split(split)) for split in SPLITS] == [4, 4, 4, 4]
    assert data.left_out == ()


def test_images_in_sub_folders_of_classes_are_counted_by_split(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train/cat": 3, "train/cat/thumbs": 2, "train/dog/a/b": 4, "test/cat": 2, "test/dog/x": 1})
    data = load(Config(root=root))
    assert data.folders == {
        "train": f"{root}/train, with 6 images in sub-folders of its classes: cat/thumbs, dog/a/b",
        "val": f"{root}/train ({len(data.val)} of its 9 images)",
        "test": f"{root}/test, with 1 images in sub-folders of its classes: dog/x",
    }


def test_images_in_sub_folders_are_counted_before_the_split(make_tree: MakeTree) -> None:
    root = make_tree("r", {f"{kind}/{name}": 5 for kind in ("animal", "plant") for name in ("a", kind)})
    data = load(Config(root=root, train=root))
    assert data.folders["train"].endswith(
        "with 20 images in sub-folders of its classes: animal/a, animal/animal, plant/a, …"
    )


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "cat\u200b"), ("traffic light", "traffic_light"), ("Big  dog", "big_Dog")]
)
def test_names_that_look_alike_are_no_two_classes(make_tree: MakeTree, one: str, other: str) -> None:
    root = make_tree("r", {one: 3, other: 3, "eel": 3})
    with pytest.raises(InputError, match=r"differ only in case, spaces or form; merge their folders, or list both"):
        load(Config(root=root))


@pytest.mark.parametrize(("one", "other"), [("-1", "1"), ("a-b", "ab"), ("a1", "a2")])
def test_names_that_differ_in_a_sign_are_two_classes(make_tree: MakeTree, one: str, other: str) -> None:
    assert len(load(Config(root=make_tree("r", {one: 3, other: 3}))).classes) == 2


def test_images_outside_class_folders_are_counted_in_the_error(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train": 4, "valid": 2})
    with pytest.raises(InputError, match=rf"has 0; move its 4 images to {root}/train/CLASS/, one folder per class$"):
        load(Config(root=root))


def test_a_folder_of_test_images_without_labels_has_a_cure(make_tree: MakeTree) -> None:
    root = make_tree("r", {"train/cat": 3, "train/dog": 3, "test/unknown": 4})
    with pytest.raises(InputError, match=f"if its images have no labels: data.test: {root}/test/unknown$"):
        load(Config(root=root))
    data = load(Config(root=root, test=root / "test" / "unknown"))
    assert len(data.test) == 4
    assert data.left_out == ()
