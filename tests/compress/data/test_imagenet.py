"""ImageNet as a data set: its layouts give the same splits, and the split val is held out of train."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from small_imagenet import SYNSETS, TRUNCATED, SmallImagenet, in_folders, in_tars, make_images

from compress.data import imagenet
from compress.images.exclusion import examine
from compress.images.samples import Data
from compress.images.shards import write_shards
from runtimes import images
from runtimes.console import SilentConsole
from runtimes.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures() -> SmallImagenet:
    return make_images()


def load(root: Path | str, **settings: int) -> Data:
    return imagenet.load(imagenet.Config(root=str(root), **settings))


def by_name(data: Data) -> dict[str, tuple[bytes, int | None]]:
    return {
        sample.name: (images.content(sample.source), sample.label) for sample in (*data.train, *data.val, *data.test)
    }


def test_every_layout_gives_the_same_images_labels_and_splits(tmp_path: Path, pictures: SmallImagenet) -> None:
    folders = load(in_folders(tmp_path / "folders", pictures), val_per_class=3)
    tars = load(in_tars(tmp_path / "tars", pictures), val_per_class=3)
    write_shards(str(tmp_path / "tars"), tmp_path / "shards", 20, 0, SilentConsole())
    shards = load(tmp_path / "shards", val_per_class=3)
    expected = {**pictures.train, **pictures.val}
    assert by_name(folders) == {
        name: (content, SYNSETS.index(name.split("/")[1])) for name, content in expected.items()
    }
    assert by_name(tars) == by_name(folders)
    assert {name.rpartition("/")[2]: pair for name, pair in by_name(shards).items()} == {
        name.rpartition("/")[2]: pair for name, pair in by_name(folders).items()
    }
    assert folders.splits_json() == tars.splits_json()
    for split in ("train", "val", "test"):
        assert [sample.label for sample in shards.split(split)] == [sample.label for sample in folders.split(split)]
    assert folders.classes == tars.classes == shards.classes == SYNSETS


def test_the_official_validation_images_are_the_test_split(tmp_path: Path, pictures: SmallImagenet) -> None:
    data = load(in_tars(tmp_path, pictures), val_per_class=5)
    assert {sample.name for sample in data.test} == set(pictures.val)
    assert Counter(sample.label for sample in data.val) == {0: 5, 1: 5, 2: 5}
    assert Counter(sample.label for sample in data.train) == {0: 11, 1: 11, 2: 11}
    assert load(tmp_path, val_per_class=5).val == data.val
    assert load(tmp_path, val_per_class=5, seed=1).val != data.val


def test_unreadable_images_are_set_aside_in_every_layout(tmp_path: Path, pictures: SmallImagenet) -> None:
    for root in (in_folders(tmp_path / "folders", pictures), in_tars(tmp_path / "tars", pictures)):
        kept = examine(load(root), 0.1, SilentConsole()).data
        assert {image.name for image in kept.rejected} == set(TRUNCATED)
        assert not {sample.name for sample in (*kept.train, *kept.val, *kept.test)} & set(TRUNCATED)


def test_misplaced_files_are_counted_in_the_error(tmp_path: Path, pictures: SmallImagenet) -> None:
    root = in_folders(tmp_path / "imagenet", pictures)
    (root / "train" / SYNSETS[0]).rename(root / "train" / "tench")
    with pytest.raises(InputError) as caught:
        load(root)
    assert str(caught.value) == (
        f"{root}/train/tench: is not named by a synset such as n01440764; move it out of {root}/train, and 1 more "
        f"problem; see: compress data check {root}"
    )
    shutil.rmtree(root / "train" / "tench")
    with pytest.raises(InputError, match="n01440764: the class is not in train; see: compress data check"):
        load(root)


def test_too_few_images_to_hold_out_raise(tmp_path: Path, pictures: SmallImagenet) -> None:
    with pytest.raises(InputError, match=r"n01440764 has 16 images, too few to hold out data\.val_per_class: 16"):
        load(in_folders(tmp_path, pictures), val_per_class=16)
