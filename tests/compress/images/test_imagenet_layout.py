"""ImageNet's three layouts: labels, names, and the problems that are reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_imagenet import (
    DEVKIT_FOLDER,
    SYNSETS,
    SmallImagenet,
    ground_truth,
    in_folders,
    in_tars,
    make_images,
    meta,
    tar,
)

from compress.images.imagenet_layout import ImagenetFiles, read_imagenet
from runtimes import images
from runtimes.errors import InputError, UnavailableError

Spoil = Callable[[Path], object]
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures() -> SmallImagenet:
    return make_images()


def contents(files: ImagenetFiles) -> dict[str, tuple[bytes, int | None]]:
    return {sample.name: (images.content(sample.source), sample.label) for sample in (*files.train, *files.val)}


def test_folders_and_tars_give_the_same_images_and_labels(tmp_path: Path, pictures: SmallImagenet) -> None:
    folders = read_imagenet(str(in_folders(tmp_path / "folders", pictures)))
    tars = read_imagenet(str(in_tars(tmp_path / "tars", pictures)))
    expected = {**pictures.train, **pictures.val}
    assert contents(folders) == {
        name: (content, SYNSETS.index(name.split("/")[1])) for name, content in expected.items()
    }
    assert contents(tars) == contents(folders)
    assert folders.classes == tars.classes == SYNSETS
    assert folders.problems == tars.problems == []


def test_files_that_are_no_images_of_a_class_are_counted(tmp_path: Path, pictures: SmallImagenet) -> None:
    root = in_folders(tmp_path / "imagenet", pictures)
    class_folder = root / "train" / SYNSETS[0]
    expected = contents(read_imagenet(str(root)))
    for name in ("x.heic", "._a.JPEG", ".ipynb_checkpoints/a.JPEG", "@eaDir/a.JPEG"):
        (class_folder / name).parent.mkdir(exist_ok=True)
        (class_folder / name).write_bytes(b"x")
    (class_folder / "gone.JPEG").symlink_to("/nowhere")
    (root / "train" / "__MACOSX").mkdir()
    (root / "train" / "__MACOSX" / "._a").write_bytes(b"x")
    (root / "val" / "stray.JPEG").write_bytes(b"x")
    (root / "test").mkdir()
    (root / "test" / "a.JPEG").write_bytes(b"x")
    files = read_imagenet(str(root))
    assert contents(files) == expected
    assert not files.problems
    assert {left.reason: left.count for left in files.left_out.all()} == {
        "extension .heic, which can't be read as an image": 1,
        "hidden, or written by another tool": 1,
        "in .ipynb_checkpoints, a folder of another tool": 1,
        "in @eaDir, a folder of another tool": 1,
        "in __MACOSX, a folder of another tool": 1,
        "broken link": 1,
        "image outside the class folders": 1,
        "in a folder beside the splits": 1,
    }


def test_links_to_class_folders_and_sub_folders_are_read(tmp_path: Path, pictures: SmallImagenet) -> None:
    root = in_folders(tmp_path / "imagenet", pictures)
    (root / "train" / SYNSETS[0]).rename(tmp_path / "store")
    (root / "train" / SYNSETS[0]).symlink_to(tmp_path / "store", target_is_directory=True)
    assert set(contents(read_imagenet(str(root)))) == {*pictures.train, *pictures.val}


def test_files_in_tars_that_are_no_images_are_counted(tmp_path: Path, pictures: SmallImagenet) -> None:
    root = in_tars(tmp_path / "tars", pictures)
    picture = next(iter(pictures.train.values()))
    inner = [tar({"a.JPEG": picture, "._a.JPEG": b"x", "notes.txt": b"x"}), tar({"b.JPEG": picture})]
    members = {f"{synset}.tar": content for synset, content in zip(SYNSETS, inner, strict=False)}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar(members))
    files = read_imagenet(str(root))
    assert [sample.name for sample in files.train] == [f"train/{SYNSETS[0]}/a.JPEG", f"train/{SYNSETS[1]}/b.JPEG"]
    assert {left.reason for left in files.left_out.all()} == {
        "hidden, or written by another tool", "extension .txt, which can't be read as an image"
    }  # fmt: skip


def test_flat_validation_images_get_their_classes_from_the_devkit(tmp_path: Path, pictures: SmallImagenet) -> None:
    in_folders(tmp_path, pictures)
    flatten(tmp_path)
    for synset in SYNSETS:
        (tmp_path / "val" / synset).rmdir()
    (tmp_path / DEVKIT_FOLDER).mkdir(parents=True)
    (tmp_path / DEVKIT_FOLDER / "meta.mat").write_bytes(meta())
    (tmp_path / DEVKIT_FOLDER / TRUTH).write_bytes(ground_truth(pictures))
    assert {sample.name: sample.label for sample in read_imagenet(str(tmp_path)).val} == {
        name: SYNSETS.index(name.split("/")[1]) for name in pictures.val
    }


def test_shards_are_read_by_the_keys_of_their_samples(tmp_path: Path, pictures: SmallImagenet) -> None:
    first, second = list(pictures.train.values())[:2]
    files = {"a/x.jpg": first, "a/x.cls": b"0", "a/x.json": b"{}", "y.jpeg": second, "y.cls": b"n02105855\n"}
    (tmp_path / "mine-train-0000.tar").write_bytes(tar(files))
    (tmp_path / "mine-validation-00.tar").write_bytes(tar({"z.jpg": first, "z.cls": b"2"}))
    (tmp_path / "classes.txt").write_text("\n".join(SYNSETS))
    layout = read_imagenet(str(tmp_path))
    assert [(sample.name, sample.label) for sample in layout.train] == [("train/a/x.jpg", 0), ("train/y.jpeg", 1)]
    assert [(sample.name, sample.label) for sample in layout.val] == [("val/z.jpg", 2)]
    assert not layout.problems


def test_shards_without_classes_txt_are_imagenet_if_their_labels_reach_999(
    tmp_path: Path, pictures: SmallImagenet
) -> None:
    picture = next(iter(pictures.train.values()))
    (tmp_path / "train-0.tar").write_bytes(tar({"a.jpg": picture, "a.cls": b"0", "b.jpg": picture, "b.cls": b"999"}))
    assert read_imagenet(str(tmp_path)).classes[::999] == ("n01440764", "n15075141")
    (tmp_path / "train-0.tar").write_bytes(tar({"a.jpg": picture, "a.cls": b"0", "b.jpg": picture, "b.cls": b"7"}))
    with pytest.raises(InputError, match=r"has no classes\.txt; write the class of each label into it"):
        read_imagenet(str(tmp_path))


def test_classes_txt_gives_the_order_of_the_labels(tmp_path: Path, pictures: SmallImagenet) -> None:
    picture = next(iter(pictures.train.values()))
    (tmp_path / "train-0.tar").write_bytes(tar({"a.jpg": picture, "a.cls": b"0", "b.jpg": picture, "b.cls": b"1"}))
    (tmp_path / "classes.txt").write_text("zebra\napple\n")
    layout = read_imagenet(str(tmp_path))
    assert [layout.classes[sample.label or 0] for sample in layout.train] == ["zebra", "apple"]
    (tmp_path / "classes.txt").write_text("zebra\napple\nzebra\n")
    with pytest.raises(InputError, match="names a class twice"):
        read_imagenet(str(tmp_path))


def test_an_unknown_kind_of_address_names_what_to_install() -> None:
    with pytest.raises(UnavailableError, match="install the fsspec package for nope://"):
        read_imagenet("nope://bucket/imagenet")


def remove(name: str) -> Spoil:
    return lambda root: (root / name).unlink()


def rename_a_class(root: Path) -> None:
    (root / "train" / SYNSETS[0]).rename(root / "train" / "tench")


def empty_a_class(root: Path) -> None:
    for path in (root / "train" / SYNSETS[0]).iterdir():
        path.unlink()


def drop_a_class(root: Path) -> None:
    shutil.rmtree(root / "train" / SYNSETS[0])


def flatten(root: Path) -> None:
    for path in [*(root / "val").glob("*/*")]:
        path.rename(root / "val" / path.name)


@pytest.mark.parametrize(
    ("spoil", "problems"),
    [
        (rename_a_class, ["train/tench: is not named by a synset such as n01440764; move it out of ROOT/train",
                          "val/n01440764: the class is not in train"]),
        (empty_a_class, ["train/n01440764: holds no images", "val/n01440764: the class is not in train"]),
        (drop_a_class, ["val/n01440764: the class is not in train"]),
    ],
)  # fmt: skip
def test_misplaced_folders_are_listed(
    tmp_path: Path, pictures: SmallImagenet, spoil: Spoil, problems: list[str]
) -> None:
    root = in_folders(tmp_path / "imagenet", pictures)
    spoil(root)
    expected = [f"{root}/{line.replace('ROOT', str(root))}" for line in problems]
    assert read_imagenet(str(root)).problems == expected


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (flatten, r"ILSVRC2012_devkit_t12\.tar\.gz; add it to the folder"),
        (lambda root: [shutil.rmtree(root / split) for split in ("train", "val")], "holds neither train/ and val/"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_folders_that_can_not_be_read_raise(
    tmp_path: Path, pictures: SmallImagenet, spoil: Spoil, message: str
) -> None:
    root = in_folders(tmp_path / "imagenet", pictures)
    spoil(root)
    with pytest.raises(InputError, match=message):
        read_imagenet(str(root))


def truncate(name: str) -> Spoil:
    def spoil(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 3 // 512 * 512 + 100])

    return spoil


def replace_devkit(files: dict[str, bytes]) -> Spoil:
    packed = tar({f"{DEVKIT_FOLDER}/{name}": content for name, content in files.items()}, "w:gz")
    return lambda root: (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(packed)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate("ILSVRC2012_img_val.tar"), r"img_val\.tar: is not a complete tar file"),
        (truncate("ILSVRC2012_devkit_t12.tar.gz"), r"devkit_t12\.tar\.gz: can't read data/meta\.mat"),
        (remove("ILSVRC2012_devkit_t12.tar.gz"), "add it to the folder"),
        (replace_devkit({"meta.mat": b"no", TRUTH: b"1"}), "devkit is not that of ILSVRC2012"),
        (replace_devkit({"meta.mat": meta(), TRUTH: b"7\n"}), "devkit is not that of ILSVRC2012"),
        (replace_devkit({"meta.mat": meta(), TRUTH: b"1\n"}), "labels 1 validation images, but there are 18"),
        (replace_devkit({"meta.mat": meta()}), "can't read"),
    ],
)
def test_tars_that_can_not_be_read_raise(tmp_path: Path, pictures: SmallImagenet, spoil: Spoil, message: str) -> None:
    root = in_tars(tmp_path / "imagenet", pictures)
    spoil(root)
    with pytest.raises(InputError, match=message):
        read_imagenet(str(root))


@pytest.mark.parametrize(
    ("name", "files", "problem"),
    [
        ("some-0.tar", {"a.jpg": b"", "a.cls": b"0"}, "its name contains neither train nor val"),
        ("train-0.tar", {"a.jpg": b""}, "a has no file .cls"),
        ("train-0.tar", {"a.cls": b"0"}, "a has no image"),
        ("train-0.tar", {"a.jpg": b"", "a.cls": b"9"}, "label '9' is none of the classes"),
        ("train-0.tar", {"a.jpg": b"", "a.cls": b"cat"}, "label 'cat' is none of the classes"),
    ],
)
def test_problems_of_shards_are_listed(tmp_path: Path, name: str, files: dict[str, bytes], problem: str) -> None:
    (tmp_path / name).write_bytes(tar(files))
    (tmp_path / "classes.txt").write_text("\n".join(SYNSETS))
    (line,) = read_imagenet(str(tmp_path)).problems
    assert line.startswith(str(tmp_path / name))
    assert problem in line
