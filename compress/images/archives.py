"""Read images inside tar files, local or in an object store, by offset; the index of a tar is cached."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from compress.process.user_cache import user_cache
from runtimes.errors import InputError, UnavailableError
from runtimes.files import replacing

INDEX_VERSION = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a file. path: local, or an address that fsspec understands, such as s3://bucket/train-000000.tar."""

    path: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """Return the bytes; raises OSError if the file is too short or can't be read."""
        if is_remote(self.path):
            system, path = _file_system(self.path)
            content: bytes = system.cat_file(path, self.offset, self.offset + self.size)
        else:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                content = os.pread(descriptor, self.size, self.offset)
            finally:
                os.close(descriptor)
        if len(content) != self.size:
            raise OSError(f"{self.path} ends inside the image that starts at byte {self.offset}")
        return content

    def __str__(self) -> str:
        return f"{self.path}, {self.size} bytes at {self.offset}"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar. text: content of a label file, empty for other files."""

    name: str
    offset: int
    size: int
    text: str = ""


def is_remote(path: str | Path) -> bool:
    """Return whether a path is an address such as s3://bucket/file."""
    return "://" in str(path)


def list_files(root: str, pattern: str) -> list[str]:
    """Return the sorted paths of the files in a folder or at an address whose names match the pattern."""
    if not is_remote(root):
        return sorted(str(path) for path in Path(root).glob(pattern))
    system, path = _file_system(root)
    try:
        return sorted(system.unstrip_protocol(name) for name in system.glob(f"{path.rstrip('/')}/{pattern}"))
    except OSError as error:
        raise InputError(f"{root}: can't be listed ({error})") from error


def read_text(path: str) -> str | None:
    """Return the text of a small file, None if it does not exist."""
    try:
        with open_file(path) as stream:
            return str(stream.read().decode("utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error})") from error


def open_file(path: str) -> IO[bytes]:
    """Open a local or remote file for reading."""
    if not is_remote(path):
        return open(path, "rb")
    system, name = _file_system(path)
    stream: IO[bytes] = system.open(name, "rb")
    return stream


def members(path: str, label_suffixes: tuple[str, ...] = ()) -> list[Member]:
    """Return the files in a tar and in the tars nested in it; the list is cached per version of the tar.

    label_suffixes: suffixes of the files whose text to read. Raises InputError for a damaged or incomplete tar.
    """
    index_file = _index_file(path, label_suffixes)
    if index_file.is_file():
        return _read_index(index_file)
    try:
        with open_file(path) as stream:
            files = list(_scan(stream, 0, label_suffixes))
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{path}: is not a complete tar file ({error}); download it again") from error
    _write_index(index_file, files)
    return files


def _version(path: str) -> str:
    """Return a text that changes when the file changes."""
    if is_remote(path):
        system, name = _file_system(path)
        return str(system.ukey(name))
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"


def _scan(stream: IO[bytes], start: int, label_suffixes: tuple[str, ...]) -> Iterator[Member]:
    """Yield the files in a tar; `start` is the offset of the tar in the outermost file, from which offsets count."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # TarFile keeps all entries in memory
            if not entry.isreg():
                continue
            inner = archive.extractfile(entry)
            assert inner is not None
            offset = start + entry.offset_data
            if entry.name.endswith(".tar"):
                folder = entry.name.removesuffix(".tar")
                for member in _scan(inner, offset, label_suffixes):
                    yield Member(f"{folder}/{member.name}", member.offset, member.size, member.text)
            else:
                text = inner.read().decode("utf-8", "replace").strip() if entry.name.endswith(label_suffixes) else ""
                yield Member(entry.name, offset, entry.size, text)


def _index_file(path: str, label_suffixes: tuple[str, ...]) -> Path:
    try:
        content = repr((INDEX_VERSION, os.path.abspath(path), _version(path), label_suffixes))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from error
    key = hashlib.sha256(content.encode()).hexdigest()
    return user_cache("archives") / f"{key[:24]}.npz"


def _read_index(path: Path) -> list[Member]:
    with np.load(path, allow_pickle=False) as arrays:
        names, texts = (bytes(arrays[key]).decode("utf-8", "surrogateescape").split("\0") for key in ("names", "texts"))
        if not len(arrays["offsets"]):
            return []
        rows = zip(names, arrays["offsets"].tolist(), arrays["sizes"].tolist(), texts, strict=True)
        return [Member(*row) for row in rows]


def _write_index(path: Path, files: list[Member]) -> None:
    arrays: dict[str, Any] = {
        "names": _packed(member.name for member in files),
        "texts": _packed(member.text for member in files),
        "offsets": np.asarray([member.offset for member in files], np.int64),
        "sizes": np.asarray([member.size for member in files], np.int64),
    }
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _packed(texts: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Return texts as one array of bytes, separated by zeros."""
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def _file_system(path: str) -> tuple[Any, str]:
    """Return the fsspec file system (which fsspec caches per process) and the path in it."""
    import fsspec

    try:
        system, name = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise UnavailableError(
            f"{path}: {error}; install the fsspec package for {path.partition('://')[0]}://"
        ) from error
    return system, name
