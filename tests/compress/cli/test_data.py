"""The commands data check and data shard."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import assert_one_line, call
from PIL import Image
from small_imagenet import in_folders, make_images


def test_check_counts_the_classes_and_names_the_faulty_images(flowers: Path) -> None:
    (flowers / "rose" / "3.png").write_bytes(b"not an image")
    Image.new("CMYK", (16, 16)).save(flowers / "rose" / "4.jpg")
    result = call("data", "check", f"imagefolder:{flowers}")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "in the wrong place: none" in lines
    assert "CMYK, read as RGB: 1" in lines
    place = lines.index("unreadable, skipped in a run: 1")
    assert "rose/3.png" in lines[place + 1]


def test_check_as_json_has_every_class(flowers: Path) -> None:
    content = json.loads(call("data", "check", f"imagefolder:{flowers}", "--json").stdout)
    assert set(content) == {
        "counts", "unreadable", "cmyk", "problems", "odd", "copies", "contradictions", "repeated", "similar",
        "left_out", "folders",
    }  # fmt: skip
    assert sum(split["rose"] for split in content["counts"].values()) == 10


def test_check_counts_what_is_left_out_and_names_folders_and_absent_classes(flowers: Path) -> None:
    train, test = flowers.parent / "r" / "Training", flowers.parent / "r" / "Testing"
    train.parent.mkdir()
    flowers.rename(train)
    (test / "rose").mkdir(parents=True)
    for path in sorted((train / "rose").iterdir())[:3]:
        path.rename(test / "rose" / path.name)
    (train / "rose" / "x.heic").write_bytes(b"x")
    (train / "rose" / ".ipynb_checkpoints").mkdir()
    (train / "rose" / ".ipynb_checkpoints" / "0-checkpoint.png").write_bytes(b"x")
    (train / "rose" / "link.png").symlink_to("/nowhere.png")
    lines = call("data", "check", f"imagefolder:{train.parent}").stdout.splitlines()
    hidden = ".ipynb_checkpoints, a folder of another tool, for example"
    for expected in (
        f"train: {train}",
        f"test: {test}",
        f"left out: 1 file: in {hidden} {train}/rose/.ipynb_checkpoints/0-checkpoint.png",
        f"left out: 1 file: extension .heic, which can't be read as an image, for example {train}/rose/x.heic",
        f"left out: 1 file: broken link, for example {train}/rose/link.png",
    ):
        assert expected in lines
    assert any(line.startswith(f"val: {train} (") for line in lines)
    assert any(line.startswith("test: no images of") for line in lines)
    content = json.loads(call("data", "check", f"imagefolder:{train.parent}", "--json").stdout)
    assert {files["reason"]: files["count"] for files in content["left_out"]}["broken link"] == 1
    assert content["folders"]["test"] == str(test)


def test_beyond_twenty_names_are_counted(flowers: Path) -> None:
    for index in range(25):
        (flowers / "rose" / f"bad{index}.png").write_bytes(b"not an image")
    lines = call("data", "check", f"imagefolder:{flowers}").stdout.splitlines()
    place = lines.index("unreadable, skipped in a run: 25")
    assert lines[place + 21] == "  … and 5 more; --json prints all"


def test_check_of_an_unknown_data_set_is_one_line(tmp_path: Path) -> None:
    assert_one_line(call("data", "check", f"imagefolder:{tmp_path / 'none'}"), 2, "none")


def test_shard_says_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, out = in_folders(tmp_path / "imagenet", make_images()), tmp_path / "shards"
    result = call("data", "shard", root, out, "--images-per-shard", "20")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"wrote 3 shards of train, 1 shards of val to {out}\n"
    assert len([*out.glob("*.tar")]) == 4
    assert_one_line(call("data", "shard", root, tmp_path / "imagenet"), 2, str(tmp_path / "imagenet"))


@pytest.mark.parametrize(("command", "root"), [("check", "/data/flowers"), ("shard", "/data/imagenet")])
def test_each_command_has_help_with_an_example(command: str, root: str) -> None:
    output = " ".join(call("data", command, "--help").output.split())
    assert f"Example: compress data {command} {root}" in output


def test_check_recognizes_class_folders(flowers: Path) -> None:
    named, plain = (call("data", "check", root) for root in (f"imagefolder:{flowers}", flowers))
    assert (plain.exit_code, plain.stdout) == (0, named.stdout)
    assert "rose" in plain.stdout


def test_check_recognizes_splits_with_class_folders(flowers: Path) -> None:
    root = flowers.parent / "splits"
    for split in ("train", "val"):
        shutil.copytree(flowers, root / split)
    result = call("data", "check", root)
    assert result.exit_code == 0, result.output
    assert f"train: {root / 'train'}" in result.stdout


def test_check_recognizes_an_imagenet(tmp_path: Path) -> None:
    result = call("data", "check", in_folders(tmp_path / "imagenet", make_images()))
    assert result.exit_code == 0, result.output
    assert "n01440764" in result.stdout
