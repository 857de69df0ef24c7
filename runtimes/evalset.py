"""An evaluation set as files: what both host and board feed to a session.

images.npy    uint8 (N, H, W, 3) RGB, resized and cropped, not yet normalised; memory-mapped, so memory stays flat
labels.npy    int64 (N,), absent for images without labels
evalset.json  class names, preprocessing, names of the images, sha256 of both arrays; written last
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtimes.errors import InputError
from runtimes.files import replacing, sha256_file, write_json
from runtimes.preprocessing import Preprocessing

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class EvalSet:
    """Preprocessed images with their labels, ready to be normalised and run."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    names: tuple[str, ...]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    sha256: str

    def __len__(self) -> int:
        return len(self.images)

    def head(self, count: int) -> EvalSet:
        """Return the first `count` images as a set of their own."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, images=self.images[:count], labels=labels, names=self.names[:count])

    def batches(self, size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield normalised float32 `(size, 3, H, W)` batches in order; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self.preprocessing.normalize(self.images[start : start + size])


def write(
    folder: Path,
    images: Iterable[npt.NDArray[np.uint8]],
    labels: npt.NDArray[np.int64] | None,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
) -> EvalSet:
    """Write `len(names)` uint8 (H, W, 3) images one by one, then open the set; raises InputError for an empty one."""
    if not names:
        raise InputError(f"{folder.name}: there are no images to write")
    side = preprocessing.crop
    with replacing(folder / "images.npy") as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(names), side, side, 3))
        for index, image in enumerate(images):
            array[index] = image
        array.flush()
        del array
    digests = {"images": sha256_file(folder / "images.npy")}
    if labels is not None:
        with replacing(folder / "labels.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, labels.astype(np.int64))
        digests["labels"] = sha256_file(folder / "labels.npy")
    write_json(
        folder / "evalset.json",
        {
            "schema_version": SCHEMA_VERSION,
            "sha256": digests,
            "classes": classes,
            "names": names,
            "preprocessing": asdict(preprocessing),
        },
    )
    return load(folder)


def load(folder: Path) -> EvalSet:
    """Open an evaluation set, its images memory-mapped; raises InputError where it is not one."""
    try:
        description = json.loads((folder / "evalset.json").read_text())
        if description["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{folder}: evaluation set of schema version {description['schema_version']}, not 1")
        return EvalSet(
            images=np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False),
            labels=np.load(folder / "labels.npy", allow_pickle=False) if "labels" in description["sha256"] else None,
            names=tuple(description["names"]),
            classes=tuple(description["classes"]),
            preprocessing=Preprocessing.from_dict(description["preprocessing"]),
            sha256=description["sha256"]["images"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: not an evaluation set (evalset.json, images.npy, labels.npy): {error}") from error
