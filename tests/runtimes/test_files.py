"""Tests of runtimes.files: atomic writing, sha256 and JSON."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from runtimes import files
from runtimes.files import printable, read_json, replacing, sha256_file, write_bytes, write_json, write_text


def test_a_new_file_and_its_folders_appear_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model.bin"
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [entry.name for entry in path.parent.iterdir()] == ["model.bin"]


def test_the_old_file_stands_until_the_block_is_left(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename is atomic only within one file system
        written = temporary.stat().st_ino
    assert path.read_text() == "new"
    assert path.stat().st_ino == written  # renamed, not copied


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
@pytest.mark.parametrize("written", [True, False])
def test_an_exception_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, error: BaseException, written: bool
) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:  # noqa: PT012
        if written:
            temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "f", []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        flushed.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir(), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_text(path, "x")
    assert flushed == [(False, False), (True, True)]


def test_a_block_that_writes_nothing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "f", "Größe µs\n")
    assert (tmp_path / "f").read_bytes() == "Größe µs\n".encode()


def test_json_is_read_back_the_same(tmp_path: Path) -> None:
    value = {"a": [1, 0.1, None, True, "ü"], "b": {}}
    write_json(tmp_path / "f", value)
    assert json.loads((tmp_path / "f").read_text()) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_without_a_finite_number_is_refused_and_the_old_file_stays(tmp_path: Path, number: float) -> None:
    path = tmp_path / "f"
    write_json(path, {"top1": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"top1": number})
    assert json.loads(path.read_text()) == {"top1": 0.5}


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_in_pieces_is_that_of_all_bytes(tmp_path: Path, size: int) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    (tmp_path / "f").write_bytes(content)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 50_000 + b"]" * 50_000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_or_too_deep_or_too_long_a_number_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 (Python's own words)
        read_json(tmp_path / "a.json")


def test_a_device_that_never_ends_is_no_json() -> None:
    with pytest.raises(ValueError, match="larger than 256 MiB"):
        read_json(Path("/dev/zero"))


def test_names_that_are_not_utf_8_or_several_lines_are_escaped() -> None:
    assert printable("a\nb\x1b[31m\u2028 é\u3000c") == "a\\nb\\x1b[31m\\u2028 é\u3000c"
    assert printable(os.fsdecode(b"caf\xe9/\xc3\xa9")) == "caf\\xe9/é"


@dataclass(frozen=True)
class Point:
    """A record of all kinds of types."""

    name: str
    x: float
    sizes: tuple[int, ...]
    pair: tuple[int, int] = (0, 0)
    kind: Literal["a", "b"] = "a"
    rails: dict[str, float] | Literal["unknown"] = "unknown"
    inner: Inner | None = None
    anything: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inner:
    """A record in another, whose key in JSON is not its name."""

    units: int = field(metadata={"json": "before"})


WHOLE = {
    "name": "n", "x": 1, "sizes": [1, 2], "pair": [3, 4], "kind": "b", "rails": {"cpu": 0.5}, "inner": {"before": 7},
    "anything": {"key": [None]},
}  # fmt: skip


def test_a_record_is_read_by_its_types() -> None:
    expected = Point("n", 1, (1, 2), (3, 4), "b", {"cpu": 0.5}, Inner(7), {"key": [None]})
    assert files.read_object(Point, WHOLE) == expected
    assert files.read_object(Point, {"name": "n", "x": 0.5, "sizes": []}) == Point("n", 0.5, ())
    assert files.read_object(Point, {**WHOLE, "rails": "unknown", "inner": None}).inner is None


@pytest.mark.parametrize(("change", "message"), [
    ({"name": 3}, "name: 3 is not str"), ({"x": "1"}, "x: '1' is not float"), ({"x": True}, "x: True is not float"),
    ({"x": math.nan}, "x: nan is not float"), ({"x": math.inf}, "x: inf"), ({"sizes": 3}, "sizes: 3 is not tuple"),
    ({"sizes": {}}, "sizes: {} is not"), ({"sizes": [1.5]}, "sizes: 1.5 is not int"), ({"pair": [1]}, "pair: "),
    ({"kind": "c"}, "kind: 'c' is not"), ({"kind": []}, r"kind: \[\] is not"), ({"rails": {"cpu": "1"}}, "rails: "),
    ({"rails": ["cpu"]}, "rails: "), ({"inner": {}}, "inner: "), ({"inner": []}, "inner: "), ({"more": 1}, "'more' is"),
    ({"anything": []}, "anything: "),
])  # fmt: skip
def test_a_value_of_another_type_is_refused_with_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        files.read_object(Point, {**WHOLE, **change})


@pytest.mark.parametrize("content", [[], None, "text", 3, [["name", "n"]]])
def test_anything_but_an_object_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="is not an object"):
        files.read_object(Point, content)


@pytest.mark.parametrize("key", ["name", "x", "sizes"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"it has no {key}"):
        files.read_object(Point, {name: value for name, value in WHOLE.items() if name != key})
