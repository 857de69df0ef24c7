"""Digest of the source code that can change a result; it is part of every cache key."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from compress import __version__

ROOT = Path(__file__).parents[2]
SOURCE_FOLDERS = (
    "compress/images", "compress/networks", "compress/models", "compress/data", "compress/stages", "compress/training",
    "compress/pruning", "compress/quantization", "compress/pipeline", "export", "runtimes",
)  # fmt: skip
SOURCE_FILES = (
    "compress/process/distributed.py",
    "compress/verdict/statistics.py",  # its bounds steer pruning and quantization
)


@functools.cache
def code_digest() -> str:
    """Return the sha256 of the toolkit's version and of every source file that a result can depend on."""
    digest = hashlib.sha256(__version__.encode())
    paths = [path for folder in SOURCE_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in (*paths, *(ROOT / file for file in SOURCE_FILES)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
