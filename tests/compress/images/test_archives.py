"""Members of tar files, their cached index, and reading by offset."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_imagenet import tar

from compress.images import archives
from compress.images.archives import Member, Slice, list_files, members, read_text
from runtimes import images
from runtimes.errors import InputError, UnavailableError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/compress/archives"


def read(path: Path, member: Member) -> bytes:
    return Slice(str(path), member.offset, member.size).read_bytes()


def test_members_of_nested_tars_are_found_by_offset(tmp_path: Path) -> None:
    path = tmp_path / "outer.tar"
    path.write_bytes(tar({"plain.jpg": b"12345", "n1.tar": tar({"a.jpg": b"abc", "b.jpg": b""})}))
    files = {member.name: member for member in members(str(path))}
    assert {name: read(path, member) for name, member in files.items()} == {
        "plain.jpg": b"12345", "n1/a.jpg": b"abc", "n1/b.jpg": b""
    }  # fmt: skip


def test_only_label_files_are_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(tar({"a.jpg": b"1", "a.cls": b" 7\n", "\xfcber.cls": "größe".encode()}))
    assert [(member.name, member.text) for member in members(str(path), (".cls",))] == [
        ("a.jpg", ""), ("a.cls", "7"), ("\xfcber.cls", "größe")
    ]  # fmt: skip


def test_the_index_is_read_from_the_cache_until_the_tar_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"a.jpg": b"1", "a.cls": b"0"}))
    first = members(str(path), (".cls",))
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_scan", lambda *arguments: pytest.fail("scanned again"))
        assert members(str(path), (".cls",)) == first
    path.write_bytes(tar({"b.jpg": b"22"}))
    os.utime(path, ns=(0, 1))
    assert [member.name for member in members(str(path), (".cls",))] == ["b.jpg"]
    assert len(list(cache.iterdir())) == 2


def test_an_empty_tar_has_no_members_also_from_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "empty.tar"
    path.write_bytes(tar({}))
    assert members(str(path)) == members(str(path)) == []


@pytest.mark.parametrize("content", [b"no tar", tar({"a.jpg": b"1" * 2000})[:1000]])
def test_a_damaged_tar_raises(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tar: is not a complete tar file \(.*\); download it again"):
        members(str(tmp_path / "a.tar"))


def test_a_missing_tar_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.tar: can't be read \(No such file or directory\)"):
        members(str(tmp_path / "a.tar"))


def test_a_slice_beyond_the_end_of_its_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"12345")
    assert Slice(str(tmp_path / "a.tar"), 1, 3).read_bytes() == b"234"
    with pytest.raises(images.UnreadableImageError, match="ends inside the image that starts at byte 3"):
        images.decode(Slice(str(tmp_path / "a.tar"), 3, 10))
    with pytest.raises(images.UnreadableImageError, match="No such file"):
        images.decode(Slice(str(tmp_path / "b.tar"), 3, 10))


def test_addresses_are_read_as_local_files_are(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).write_bytes(tar({"x.jpg": name.encode()}))
    address = f"local://{tmp_path}"
    local, remote = list_files(str(tmp_path), "*.tar"), list_files(address, "*.tar")
    assert [Path(path).name for path in local] == [Path(path).name for path in remote] == ["a.tar", "b.tar"]
    assert archives.is_remote(remote[0])
    assert not archives.is_remote(local[0])
    (member,) = members(remote[0])
    assert Slice(remote[0], member.offset, member.size).read_bytes() == b"a.tar"


def test_read_text_returns_none_for_a_missing_file_and_raises_for_binary_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("größe")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    assert read_text(str(tmp_path / "a.txt")) == read_text(f"local://{tmp_path}/a.txt") == "größe"
    assert read_text(str(tmp_path / "c.txt")) is None
    with pytest.raises(InputError, match=r"b\.txt: is not UTF-8 text"):
        read_text(str(tmp_path / "b.txt"))


def test_an_unknown_kind_of_address_names_what_to_install() -> None:
    with pytest.raises(UnavailableError, match="install the fsspec package for nope://"):
        list_files("nope://bucket", "*.tar")
