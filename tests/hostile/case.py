"""One hostile input, and what several kinds of inputs share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.models import mobilenet_v2
from export.to_onnx import to_onnx
from runtimes import evalset
from runtimes.preprocessing import Preprocessing

ROOT = Path(__file__).parents[2]
SIDE, CLASSES = 16, ("a", "b", "c")
NO_JSON = (
    b"",
    b"null",
    b"[]",
    b"12",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b'{"schema_version": 1}',
    b'{"schema_version": 99}',
    b'{"schema_version": null}',
    b"[" * 5000 + b"]" * 5000,
    b"NaN",
    b'{"a": ' + b"9" * 5000 + b"}",
)


@dataclass(frozen=True)
class Case:
    """One input. content: its identity. is_right: the command must succeed. may_be_right: it may.

    named: text that the error, or the output of a command that must succeed, must contain.
    """

    name: str
    folder: Path
    arguments: list[str]
    named: str
    content: bytes
    is_right: bool = False
    may_be_right: bool = False


def artifact_in(folder: Path) -> Path:
    """Write a small network and its manifest, and return the path of the network."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    torch.manual_seed(0)
    network = mobilenet_v2.build(mobilenet_v2.Config(width=0.25), len(CLASSES)).eval()
    to_onnx(network, path, SIDE, opset=18, batch=None).artifact(Preprocessing(SIDE, SIDE), CLASSES).save_manifest()
    return path


def evalset_in(folder: Path) -> Path:
    """Write random images with labels, and return the folder."""
    rng = np.random.default_rng(0)
    pixels = (rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(8))
    names = tuple(map(str, range(8)))
    evalset.write(folder, pixels, rng.integers(0, len(CLASSES), 8), names, CLASSES, Preprocessing(SIDE, SIDE))
    return folder


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the path and value of every leaf of nested JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from leaves(item, (*path, key))
    if not isinstance(value, (dict, list)):
        yield path, value


def put(content: Any, path: tuple[Any, ...], value: Any) -> None:
    *parents, last = path
    for parent in parents:
        content = content[parent]
    content[last] = value
