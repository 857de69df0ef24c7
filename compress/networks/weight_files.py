"""Read all tensors of a safetensors or torch file; objects other than tensors are never unpickled."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from safetensors import SafetensorError, safe_open

from runtimes.errors import InputError

Tensors = dict[str, torch.Tensor]

# Exceptions that torch.load raised in tests with text files, truncated files and flipped bytes.
DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AssertionError, TypeError,
           AttributeError, OverflowError, MemoryError, OSError, struct.error)  # fmt: skip
OBJECT = re.compile(r"(?:GLOBAL|class) (\w+\.[\w.]+)")  # in errors of torch's unpickler
START_BYTES = 64
MAX_PATH = 1000  # characters; deeper content holds no weights


@dataclass(frozen=True)
class Content:
    """The tensors of a file by dotted path, such as `state_dict.conv1.weight`.

    containers: dotted paths of the mappings and lists that hold them. metadata: text of a safetensors file.
    """

    tensors: Tensors
    containers: frozenset[str] = frozenset()
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: object, metadata: dict[str, str] | None = None) -> Content:
        """Collect the tensors of nested mappings and lists."""
        tensors, containers = {}, set()
        for path, item in _walk(value):
            if isinstance(item, torch.Tensor):
                tensors[path] = item
            elif path:
                containers.add(path)
        return cls(tensors, frozenset(containers), metadata or {})


def read(path: Path) -> Content:
    """Return the content of a file, whose format is recognized by its first bytes.

    Raises InputError for another format, for a damaged file, and for one with Python objects besides tensors.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(START_BYTES)
    except OSError as error:
        raise InputError(f"weights: {path}: can't be read ({error.strerror})") from error
    if start[8:9] == b"{":  # after the length of the header, whose first byte can be that of a pickle
        content = _safetensors(path)
    elif start.startswith(b"PK\x03\x04") and not _is_of_torch(path):
        raise InputError(
            f"weights: {path}: is a zip archive, but none of torch.save; unpack it and give the file in it"
        )
    elif start.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive or a pickle: both formats of torch.save
        content = Content.of(_torch_load(path))
    else:
        raise InputError(f"weights: {path}: {_unknown_format(start)}")
    if "" in content.tensors:
        raise InputError(f"weights: {path}: holds a single tensor, not the named tensors of a network")
    if not content.tensors:
        raise InputError(f"weights: {path}: holds no tensors")
    return content


def _is_of_torch(path: Path) -> bool:
    """Return whether a zip archive holds what torch.save writes; True for a damaged one, which torch.load refuses."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name in ("data.pkl", "constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return True


def _unknown_format(start: bytes) -> str:
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; run git lfs pull"
    text = start.split(b"\n")[0][:40].decode("ascii", "replace")
    begin = f"; it begins with {text!r}" if text.isascii() and text.isprintable() else ""
    return f"neither a safetensors file nor one of torch.save, or damaged{begin}"


def _safetensors(path: Path) -> Content:
    try:
        with safe_open(path, "pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return Content(tensors, metadata=stream.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights: {path}: not a safetensors file ({error})") from error


def _torch_load(path: Path) -> object:
    try:
        with path.open("rb") as stream, warnings.catch_warnings():  # given a path, torch would look at its suffix
            warnings.simplefilter("ignore", UserWarning)  # torch guesses the type of unknown files
            return torch.load(stream, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise InputError(f"weights: {path}: {_refusal(str(error))}") from error


def _refusal(error: str) -> str:
    if "TorchScript" in error:
        return ("is a TorchScript archive, which holds code; it was not executed; save its tensors alone: "
                "torch.save(torch.jit.load(FILE).state_dict(), 'tensors.pth')")  # fmt: skip
    named = OBJECT.search(error)
    if named is None:
        return ("contains objects other than tensors, or is damaged; it was not executed; save the network's "
                "state_dict() as .safetensors")  # fmt: skip
    return (
        f"contains an object of Python, {named[1]}, besides tensors; it was not executed; if you trust the file, save "
        "its tensors alone: torch.save(torch.load(FILE, weights_only=False)[KEY], 'tensors.pth')"
    )


def _walk(root: object) -> Iterator[tuple[str, object]]:
    """Yield each tensor, mapping and list with its dotted path; an object that several paths share only once.

    A loop instead of recursion: a file can nest thousands of lists, or a list in itself.
    """
    waiting, seen = [("", root)], set()
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield path, value
            continue
        if isinstance(value, Mapping):
            items = [(str(key), item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            items = [(str(index), item) for index, item in enumerate(value)]
        else:
            continue
        if id(value) not in seen and len(path) <= MAX_PATH:
            seen.add(id(value))
            yield path, value
            waiting += [(f"{path}.{key}" if path else key, item) for key, item in reversed(items)]
