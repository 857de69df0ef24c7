"""Atomic file writing (temporary name, fsync, rename), sha256, JSON and names of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]  # a JSON object; its keys are checked where it becomes a typed record
JsonValue: TypeAlias = Any  # any value that JSON can hold

MAX_JSON_BYTES = 1 << 28
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # control characters and line separators


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` after the block.

    If the block raises, the temporary file is removed and an existing `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: JsonValue) -> None:
    """Write `value` as JSON to `path` atomically; raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sha256_file(path: Path) -> str:
    """Return the hexadecimal sha256 of the file's bytes."""
    digest = hashlib.sha256()  # JetPack has Python 3.10, which lacks hashlib.file_digest
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> JsonValue:
    """Return what a JSON file holds; raises OSError, and ValueError for all that is no JSON, or more than 256 MiB."""
    with path.open("rb") as stream:
        content = stream.read(MAX_JSON_BYTES + 1)  # bounded: a device file such as /dev/zero never ends
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"larger than {MAX_JSON_BYTES >> 20} MiB")
    return parse_json(content)


def parse_json(text: str | bytes) -> JsonValue:
    """Return the value of a JSON text; raises ValueError if it is malformed or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def printable(text: str) -> str:
    r"""Return a path on one line that any file can hold: bytes that are no UTF-8 as \xff, control characters as \n."""
    decoded = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), decoded)
