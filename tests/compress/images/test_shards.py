"""WebDataset shards: content, order, resuming and refusing."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from consoles import RecordingConsole
from small_imagenet import SYNSETS, SmallImagenet, in_folders, in_tars, make_images

from compress.images import archives
from compress.images.imagenet_layout import read_imagenet
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


def contents(root: str) -> dict[str, tuple[bytes, int | None]]:
    files = read_imagenet(root)
    return {
        Path(sample.name).name: (images.content(sample.source), sample.label)
        for sample in (*files.train, *files.val)
    }  # fmt: skip


def test_shards_hold_the_same_bytes_and_labels(tmp_path: Path, pictures: SmallImagenet) -> None:
    console = RecordingConsole()
    root, out = str(in_tars(tmp_path / "tars", pictures)), tmp_path / "shards"
    assert write_shards(root, out, 20, 0, console) == {"train": 3, "val": 1}
    assert contents(str(out)) == contents(root)
    assert (out / "classes.txt").read_text().split() == list(SYNSETS)
    assert json.loads((out / "shards.json").read_text())["per_shard"] == 20
    total = len(pictures.train) + len(pictures.val)
    assert [done for _, done, _ in console.events] == [20, 40, 48, total]
    with tarfile.open(out / "train-000000.tar") as archive:
        names = archive.getnames()
    assert len(names) == 2 * 20
    assert all(
        image.rpartition(".")[0] == label.removesuffix(".cls")
        for image, label in zip(names[::2], names[1::2], strict=True)
    )


def test_the_order_is_drawn_by_the_seed(tmp_path: Path, pictures: SmallImagenet) -> None:
    root = str(in_folders(tmp_path / "folders", pictures))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shards(root, tmp_path / name, 100, seed, SilentConsole())
    first, same, other = ((tmp_path / name / "train-000000.tar").read_bytes() for name in "abc")
    assert first == same != other


def test_shards_at_an_address_are_read_there(tmp_path: Path, pictures: SmallImagenet) -> None:
    write_shards(str(in_tars(tmp_path / "tars", pictures)), tmp_path / "shards", 20, 0, SilentConsole())
    address = f"local://{tmp_path}/shards"
    assert contents(str(tmp_path / "shards")) == contents(address)
    source = read_imagenet(address).train[0].source
    assert isinstance(source, archives.Slice)
    assert archives.is_remote(source.path)


def test_only_missing_shards_are_written_again(tmp_path: Path, pictures: SmallImagenet) -> None:
    root, out = str(in_tars(tmp_path / "tars", pictures)), tmp_path / "shards"
    write_shards(root, out, 20, 0, SilentConsole())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.tar")}
    missing = out / "train-000001.tar"
    missing.unlink()
    write_shards(root, out, 20, 0, SilentConsole())
    assert missing.read_bytes() == before[missing][0]
    assert all(path.stat().st_mtime_ns == time for path, (_, time) in before.items() if path != missing)


def test_a_folder_with_other_content_is_refused(tmp_path: Path, pictures: SmallImagenet) -> None:
    root, out = str(in_tars(tmp_path / "tars", pictures)), tmp_path / "shards"
    write_shards(root, out, 20, 0, SilentConsole())
    with pytest.raises(InputError, match="holds shards of other images or settings; choose another folder"):
        write_shards(root, out, 20, 1, SilentConsole())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(InputError, match="is not empty; choose another folder"):
        write_shards(root, tmp_path / "other", 20, 0, SilentConsole())


def test_misplaced_files_are_refused_before_anything_is_written(tmp_path: Path, pictures: SmallImagenet) -> None:
    root = in_folders(tmp_path / "folders", pictures)
    (root / "train" / "cats").mkdir()
    with pytest.raises(InputError, match=f"cats: is not named by a synset .*; see: compress data check {root}"):
        write_shards(str(root), tmp_path / "out", 20, 0, SilentConsole())
    assert not (tmp_path / "out").exists()
