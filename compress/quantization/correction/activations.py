"""Store activations of all calibration images on disk, so that memory does not grow with their number."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Activations:
    """Named tensors in a temporary folder, each in batches of the same images."""

    def __init__(self, parent: Path | None = None) -> None:
        """Create a folder in `parent`, or in the system's folder for temporary files."""
        self._folder = tempfile.TemporaryDirectory(prefix=".activations-", dir=parent)
        self._batches: dict[str, int] = {}
        self._file_names: dict[str, str] = {}

    def append(self, name: str, batch: Array) -> None:
        """Store the next batch of a tensor."""
        index = self._batches.get(name, 0)
        self._file_names.setdefault(name, f"{len(self._file_names)}")
        np.save(self._path(name, index), batch, allow_pickle=False)
        self._batches[name] = index + 1

    def batches(self, name: str) -> Iterator[Array]:
        """Yield a tensor's batches in order."""
        for index in range(self._batches[name]):
            yield np.load(self._path(name, index), allow_pickle=False)

    def drop(self, name: str) -> None:
        """Delete a tensor."""
        for index in range(self._batches.pop(name, 0)):
            self._path(name, index).unlink()

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

    def _path(self, name: str, index: int) -> Path:
        return Path(self._folder.name) / f"{self._file_names[name]}-{index}.npy"
