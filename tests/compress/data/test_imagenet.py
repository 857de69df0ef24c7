"""ImageNet's layouts give the same images with the same labels; what is in a wrong place is told."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from made_imagenet import DEVKIT_FOLDER, SYNSETS, TRUNCATED, Made, ground_truth, in_folders, in_tars, made, meta, tar

from compress.data import imagenet
from compress.images import archives, samples
from compress.images.samples import Data
from compress.images.shards import shard
from runtimes import images
from runtimes.console import SilentConsole
from runtimes.errors import InputError, UnavailableError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures() -> Made:
    return made()


def load(root: Path | str, **settings: int) -> Data:
    return imagenet.load(imagenet.Config(root=str(root), **settings))


def by_name(data: Data) -> dict[str, tuple[bytes, int | None]]:
    return {
        sample.name: (images.content(sample.source), sample.label) for sample in (*data.train, *data.val, *data.test)
    }


def test_every_layout_gives_the_same_images_labels_and_splits(tmp_path: Path, pictures: Made) -> None:
    folders = load(in_folders(tmp_path / "folders", pictures), val_per_class=3)
    tars = load(in_tars(tmp_path / "tars", pictures), val_per_class=3)
    shard(str(tmp_path / "tars"), tmp_path / "shards", 20, 0, SilentConsole())
    shards = load(tmp_path / "shards", val_per_class=3)
    wanted = {**pictures.train, **pictures.val}
    assert by_name(folders) == {name: (content, SYNSETS.index(name.split("/")[1])) for name, content in wanted.items()}
    assert by_name(tars) == by_name(folders)
    assert {name.rpartition("/")[2]: pair for name, pair in by_name(shards).items()} == {
        name.rpartition("/")[2]: pair for name, pair in by_name(folders).items()
    }
    assert folders.splits_json() == tars.splits_json()
    for split in ("train", "val", "test"):
        assert [one.label for one in shards.split(split)] == [one.label for one in folders.split(split)]
    assert folders.classes == tars.classes == shards.classes == SYNSETS


def test_the_official_validation_images_are_the_test_split(tmp_path: Path, pictures: Made) -> None:
    data = load(in_tars(tmp_path, pictures), val_per_class=5)
    assert {sample.name for sample in data.test} == set(pictures.val)
    assert Counter(sample.label for sample in data.val) == {0: 5, 1: 5, 2: 5}
    assert Counter(sample.label for sample in data.train) == {0: 11, 1: 11, 2: 11}
    assert load(tmp_path, val_per_class=5).val == data.val
    assert load(tmp_path, val_per_class=5, seed=1).val != data.val


def test_flat_validation_images_get_their_classes_from_the_devkit(tmp_path: Path, pictures: Made) -> None:
    in_folders(tmp_path, pictures)
    for name, content in pictures.val.items():
        (tmp_path / "val" / Path(name).name).write_bytes(content)
    for synset in SYNSETS:
        shutil.rmtree(tmp_path / "val" / synset)
    (tmp_path / DEVKIT_FOLDER).mkdir(parents=True)
    (tmp_path / DEVKIT_FOLDER / "meta.mat").write_bytes(meta())
    (tmp_path / DEVKIT_FOLDER / "ILSVRC2012_validation_ground_truth.txt").write_bytes(ground_truth(pictures))
    assert {sample.name: sample.label for sample in load(tmp_path).test} == {
        name: SYNSETS.index(name.split("/")[1]) for name in pictures.val
    }


def test_unreadable_images_are_set_aside_in_every_layout(tmp_path: Path, pictures: Made) -> None:
    for root in (in_folders(tmp_path / "folders", pictures), in_tars(tmp_path / "tars", pictures)):
        kept = samples.set_aside_unreadable(load(root), 0.1, SilentConsole())
        assert {one.name for one in kept.rejected} == set(TRUNCATED)
        assert not {one.name for one in (*kept.train, *kept.val, *kept.test)} & set(TRUNCATED)


def test_shards_of_others_are_read_by_their_keys(tmp_path: Path, pictures: Made) -> None:
    one, other = list(pictures.train.values())[:2]
    files = {"a/x.jpg": one, "a/x.cls": b"0", "a/x.json": b"{}", "y.jpeg": other, "y.cls": b"n02105855\n"}
    (tmp_path / "mine-train-0000.tar").write_bytes(tar(files))
    (tmp_path / "mine-validation-00.tar").write_bytes(tar({"z.jpg": one, "z.cls": b"2"}))
    (tmp_path / "classes.txt").write_text("\n".join(SYNSETS))
    found = imagenet.find(str(tmp_path))
    assert [(sample.name, sample.label) for sample in found.train] == [("train/a/x.jpg", 0), ("train/y.jpeg", 1)]
    assert [(sample.name, sample.label) for sample in found.val] == [("val/z.jpg", 2)]
    assert not found.problems


def test_shards_at_an_address_are_read_there(tmp_path: Path, pictures: Made) -> None:
    shard(str(in_tars(tmp_path / "tars", pictures)), tmp_path / "shards", 20, 0, SilentConsole())
    local, there = load(tmp_path / "shards"), load(f"local://{tmp_path}/shards")
    assert by_name(local) == by_name(there)
    source = there.train[0].source
    assert isinstance(source, archives.Slice)
    assert archives.is_remote(source.path)


def test_the_places_in_a_tar_are_looked_up_once(
    tmp_path: Path, pictures: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = in_tars(tmp_path / "tars", pictures)
    before = by_name(load(root))
    monkeypatch.setattr(archives, "_members", lambda *given: pytest.fail("read again"))
    assert by_name(load(root)) == before


def remove(name: str) -> object:
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
    ("spoil", "told"),
    [
        (rename_a_class, "tench: is not named by a synset, as n01440764 is; move it away, and 1 problems more"),
        (empty_a_class, "n01440764: holds no images"),
        (drop_a_class, "n01440764: the class is not in train"),
        (flatten, "ILSVRC2012_devkit_t12.tar.gz; put it there"),
        (lambda root: shutil.rmtree(root / "train") or shutil.rmtree(root / "val"), "holds neither train/ and val/"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_what_is_wrong_in_folders_is_told(tmp_path: Path, pictures: Made, spoil: object, told: str) -> None:
    root = in_folders(tmp_path / "imagenet", pictures)
    spoil(root)  # type: ignore[operator]
    with pytest.raises(InputError, match=told.replace("/", ".")):
        load(root)


def truncate(name: str) -> object:
    def cut(root: Path) -> None:
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 3 // 512 * 512 + 100])

    return cut


def other_devkit(files: dict[str, bytes]) -> object:
    packed = tar({f"{DEVKIT_FOLDER}/{name}": content for name, content in files.items()}, "w:gz")
    return lambda root: (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(packed)


TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (truncate("ILSVRC2012_img_val.tar"), "img_val.tar: is no tar file, or not all of it"),
        (truncate("ILSVRC2012_devkit_t12.tar.gz"), "devkit_t12.tar.gz: data/meta.mat can't be read"),
        (remove("ILSVRC2012_devkit_t12.tar.gz"), "put it there"),
        (other_devkit({"meta.mat": b"no", TRUTH: b"1"}), "devkit is not that of ILSVRC2012"),
        (other_devkit({"meta.mat": meta(), TRUTH: b"7\n"}), "devkit is not that of ILSVRC2012"),
        (other_devkit({"meta.mat": meta(), TRUTH: b"1\n"}), "labels 1 validation images, but there are 18"),
        (other_devkit({"meta.mat": meta()}), "can't be read"),
    ],
)
def test_what_is_wrong_in_tars_is_told(tmp_path: Path, pictures: Made, spoil: object, told: str) -> None:
    root = in_tars(tmp_path / "imagenet", pictures)
    spoil(root)  # type: ignore[operator]
    with pytest.raises(InputError, match=told):
        load(root)


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("some-0.tar", {"a.jpg": b"", "a.cls": b"0"}, "says neither train nor val"),
        ("train-0.tar", {"a.jpg": b""}, "a has no file .cls"),
        ("train-0.tar", {"a.cls": b"0"}, "a has no image"),
        ("train-0.tar", {"a.jpg": b"", "a.cls": b"9"}, "label '9' is none of the classes"),
        ("train-0.tar", {"a.jpg": b"", "a.cls": b"cat"}, "label 'cat' is none of the classes"),
    ],
)
def test_what_is_wrong_in_shards_is_told(tmp_path: Path, name: str, files: dict[str, bytes], told: str) -> None:
    (tmp_path / name).write_bytes(tar(files))
    (tmp_path / "classes.txt").write_text("\n".join(SYNSETS))
    with pytest.raises(InputError, match=told):
        load(tmp_path)


def test_shards_without_classes_are_imagenets_if_their_labels_are(tmp_path: Path, pictures: Made) -> None:
    picture = next(iter(pictures.train.values()))
    (tmp_path / "train-0.tar").write_bytes(tar({"a.jpg": picture, "a.cls": b"0", "b.jpg": picture, "b.cls": b"999"}))
    assert imagenet.find(str(tmp_path)).classes[::999] == ("n01440764", "n15075141")
    (tmp_path / "train-0.tar").write_bytes(tar({"a.jpg": picture, "a.cls": b"0", "b.jpg": picture, "b.cls": b"7"}))
    with pytest.raises(InputError, match=r"has no classes\.txt"):
        imagenet.find(str(tmp_path))


def test_too_few_images_to_hold_out_are_told(tmp_path: Path, pictures: Made) -> None:
    with pytest.raises(InputError, match=r"n01440764 has 16 images, too few to hold out data\.val_per_class: 16"):
        load(in_folders(tmp_path, pictures), val_per_class=16)


def test_a_part_of_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"12345")
    with pytest.raises(images.UnreadableImageError, match="ends within the image at byte 3"):
        images.decode(archives.Slice(str(tmp_path / "a.tar"), 3, 10))
    with pytest.raises(images.UnreadableImageError, match="No such file"):
        images.decode(archives.Slice(str(tmp_path / "b.tar"), 3, 10))


def test_an_address_of_no_known_kind_says_what_to_install() -> None:
    with pytest.raises(UnavailableError, match="install what fsspec needs for nope://"):
        load("nope://bucket/imagenet")


def test_classes_keep_the_order_of_the_labels(tmp_path: Path, pictures: Made) -> None:
    picture = next(iter(pictures.train.values()))
    (tmp_path / "train-0.tar").write_bytes(tar({"a.jpg": picture, "a.cls": b"0", "b.jpg": picture, "b.cls": b"1"}))
    (tmp_path / "classes.txt").write_text("zebra\napple\n")
    found = imagenet.find(str(tmp_path))
    assert [found.classes[sample.label or 0] for sample in found.train] == ["zebra", "apple"]
    (tmp_path / "classes.txt").write_text("zebra\napple\nzebra\n")
    with pytest.raises(InputError, match="names a class twice"):
        imagenet.find(str(tmp_path))
