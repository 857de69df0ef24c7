"""Atomic file writing (temporary name, fsync, rename), sha256, JSON and names of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import threading
import types
from collections.abc import Hashable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Json: TypeAlias = dict[str, Any]  # a JSON object; its keys are checked where it becomes a typed record
JsonValue: TypeAlias = Any  # any value that JSON can hold

Value = TypeVar("Value")

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


def json_key(declared: Field[Any]) -> str:  # Any: the type of the field
    """Return the key of a dataclass field in JSON: its metadata `json`, else its name."""
    return str(declared.metadata.get("json", declared.name))


def read_object(kind: type[Value], content: JsonValue) -> Value:
    """Build a dataclass from a JSON object.

    Raises ValueError for anything but an object, missing and unknown keys, and values of another type than declared;
    NaN and infinity are no numbers.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{content!r:.60} is not an object")
    declared = {json_key(each): each for each in fields(kind)}  # type: ignore[arg-type]
    required = {key for key, each in declared.items() if each.default is MISSING and each.default_factory is MISSING}
    missing, unknown = sorted(required - content.keys()), sorted(map(str, content.keys() - declared.keys()))
    if missing or unknown:
        raise ValueError(f"it has no {missing[0]}" if missing else f"'{unknown[0]}' is an unknown key")
    hints = _types(kind)  # type: ignore[arg-type]
    values = {}
    for key, value in content.items():
        try:
            values[declared[key].name] = read_value(hints[declared[key].name], value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return kind(**values)


def read_value(hint: Any, value: JsonValue) -> Any:  # Any: a type annotation, and a value of that type
    """Convert a JSON value to a type, such as `tuple[float, ...]`; raises ValueError as `read_object` does."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for member in inner:
            with contextlib.suppress(ValueError):
                return read_value(member, value)
    elif is_dataclass(hint):
        return read_object(cast("type[Any]", hint), value)
    elif origin is dict and isinstance(value, dict):
        return {name: read_value(inner[1], item) for name, item in value.items()}
    elif origin is list and isinstance(value, (tuple, list)):
        return [read_value(inner[0], item) for item in value]
    elif origin is tuple and isinstance(value, (tuple, list)) and (inner[1] is ... or len(inner) == len(value)):
        return tuple(read_value(inner[0], item) for item in value)
    elif (
        hint is Any
        or (origin is Literal and _is_one_of(value, inner))
        or (type(value) in (int, float) if hint is float else type(value) is hint)
    ) and not (isinstance(value, float) and not math.isfinite(value)):
        return value
    raise ValueError(f"{value!r:.60} is not {getattr(hint, '__name__', hint) if origin is None else hint}")


def _is_one_of(value: JsonValue, members: tuple[Any, ...]) -> bool:
    return any(type(value) is type(member) and value == member for member in members)


@cache
def _types(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)
