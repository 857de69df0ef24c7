"""Store activations of all calibration images: in memory up to a limit, and beyond it on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


MEMORY_BYTES = 1 << 28  # small files of many images take longer than the network


class Activations:
    """Named tensors, each in batches of the same images; those beyond `memory` bytes are in a temporary folder."""

    def __init__(self, parent: Path | None = None, memory: int = MEMORY_BYTES) -> None:
        """Create a folder in `parent`, or in the system's folder for temporary files."""
        self._folder = tempfile.TemporaryDirectory(prefix=".activations-", dir=parent)
        self._batches: dict[str, list[Array | Path]] = {}
        self._free, self._files = memory, 0

    def append(self, name: str, batch: Array) -> None:
        """Store the next batch of a tensor."""
        stored: Array | Path = batch
        if batch.nbytes <= self._free:
            self._free -= batch.nbytes
        else:
            stored = Path(self._folder.name) / f"{self._files}.npy"
            self._files += 1
            np.save(stored, batch, allow_pickle=False)
        self._batches.setdefault(name, []).append(stored)

    def batches(self, name: str) -> Iterator[Array]:
        """Yield a tensor's batches in order; they are not to be changed."""
        for stored in self._batches[name]:
            yield np.load(stored, allow_pickle=False) if isinstance(stored, Path) else stored

    def drop(self, name: str) -> None:
        """Delete a tensor."""
        for stored in self._batches.pop(name, []):
            if isinstance(stored, Path):
                stored.unlink()
            else:
                self._free += stored.nbytes

    def __contains__(self, name: str) -> bool:
        """Return whether a tensor is stored."""
        return name in self._batches

    def __enter__(self) -> Activations:
        """Return itself; the folder is deleted at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the folder."""
        self._folder.cleanup()
