"""Images inside tar files, local or in an object store: found once, then read each by its place."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from compress.process.user_cache import user_cache
from runtimes.errors import InputError, UnavailableError
from runtimes.files import replacing

INDEX_VERSION = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """A file's bytes from `offset` on. path: local, or an address that fsspec knows, as s3://bucket/train-000000.tar."""

    path: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """Return them; raises OSError where the file is shorter or can't be read."""
        if is_remote(self.path):
            system, path = _file_system(self.path)
            found: bytes = system.cat_file(path, self.offset, self.offset + self.size)
        else:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                found = os.pread(descriptor, self.size, self.offset)
            finally:
                os.close(descriptor)
        if len(found) != self.size:
            raise OSError(f"{self.path} ends within the image at byte {self.offset}")
        return found

    def __str__(self) -> str:
        return f"{self.path}, {self.size} bytes at {self.offset}"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar. text: what a label file holds, else empty."""

    name: str
    offset: int
    size: int
    text: str = ""


def is_remote(path: str | Path) -> bool:
    """Whether it is an address rather than a path."""
    return "://" in str(path)


def listed(root: str, pattern: str) -> list[str]:
    """Return the files in a folder or at an address whose names fit the pattern, sorted."""
    if not is_remote(root):
        return sorted(str(path) for path in Path(root).glob(pattern))
    system, path = _file_system(root)
    try:
        return sorted(system.unstrip_protocol(name) for name in system.glob(f"{path.rstrip('/')}/{pattern}"))
    except OSError as error:
        raise InputError(f"{root}: can't be listed ({error})") from error


def read_text(path: str) -> str | None:
    """Return a small file's text, None where there is no such file."""
    try:
        with opened(path) as stream:
            return str(stream.read().decode("utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error})") from error


def opened(path: str) -> IO[bytes]:
    """Open a local or remote file to read."""
    if not is_remote(path):
        return open(path, "rb")
    system, name = _file_system(path)
    stream: IO[bytes] = system.open(name, "rb")
    return stream


def members(path: str, label_suffixes: tuple[str, ...] = ()) -> list[Member]:
    """Return the files in a tar and in the tars in it, from the cache if they were looked up before.

    label_suffixes: of the names whose text is wanted. Raises InputError for what is no tar or ends too early.
    """
    cached = _index_file(path, label_suffixes)
    if cached.is_file():
        return _read_index(cached)
    try:
        with opened(path) as stream:
            found = list(_members(stream, 0, label_suffixes))
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{path}: is no tar file, or not all of it ({error}); fetch it again") from error
    _write_index(cached, found)
    return found


def version(path: str) -> str:
    """Return what changes when a file does."""
    if is_remote(path):
        system, name = _file_system(path)
        return str(system.ukey(name))
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"


def _members(stream: IO[bytes], start: int, label_suffixes: tuple[str, ...]) -> Iterator[Member]:
    """Yield what a tar holds, offsets counted from the start of the outermost file."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else it remembers a million
            if not entry.isreg():
                continue
            inner = archive.extractfile(entry)
            assert inner is not None
            place = start + entry.offset_data
            if entry.name.endswith(".tar"):
                folder = entry.name.removesuffix(".tar")
                for one in _members(inner, place, label_suffixes):
                    yield Member(f"{folder}/{one.name}", one.offset, one.size, one.text)
            else:
                text = inner.read().decode("utf-8", "replace").strip() if entry.name.endswith(label_suffixes) else ""
                yield Member(entry.name, place, entry.size, text)


def _index_file(path: str, label_suffixes: tuple[str, ...]) -> Path:
    try:
        content = repr((INDEX_VERSION, os.path.abspath(path), version(path), label_suffixes))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from error
    key = hashlib.sha256(content.encode()).hexdigest()
    return user_cache("archives") / f"{key[:24]}.npz"


def _read_index(path: Path) -> list[Member]:
    with np.load(path, allow_pickle=False) as arrays:
        names, texts = (bytes(arrays[key]).decode("utf-8", "surrogateescape").split("\0") for key in ("names", "texts"))
        places = zip(names, arrays["offsets"].tolist(), arrays["sizes"].tolist(), texts, strict=True)
        return [Member(*one) for one in places] if len(arrays["offsets"]) else []


def _write_index(path: Path, found: list[Member]) -> None:
    arrays: dict[str, Any] = {
        key: np.frombuffer("\0".join(getattr(one, field) for one in found).encode("utf-8", "surrogateescape"), np.uint8)
        for key, field in (("names", "name"), ("texts", "text"))
    }
    for key, field in (("offsets", "offset"), ("sizes", "size")):
        arrays[key] = np.asarray([getattr(one, field) for one in found], np.int64)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _file_system(path: str) -> tuple[Any, str]:
    """Return fsspec's file system, which it caches for each process, and the path in it."""
    import fsspec

    try:
        system, name = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise UnavailableError(
            f"{path}: {error}; install what fsspec needs for {path.partition('://')[0]}://"
        ) from error
    return system, name
