"""Evaluation sets: preprocessed images with labels as files, used on host and board.

images.npy    uint8 (N, H, W, C), resized and cropped, channels in the preprocessing's order, not normalised;
              memory-mapped
labels.npy    int64 (N,), absent for unlabelled images
evalset.json  class names, preprocessing, image names, sha256 of both arrays; written last
"""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtimes.errors import InputError
from runtimes.files import read_json, read_value, replacing, sha256_file, write_json
from runtimes.preprocessing import Preprocessing

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class EvalSet:
    """Preprocessed images with their labels: uint8 (N, H, W, C) and int64 (N,) or None."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    names: tuple[str, ...]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    sha256: str

    def __len__(self) -> int:
        return len(self.images)

    def head(self, count: int) -> EvalSet:
        """Return an evaluation set of the first `count` images, or of all if there are fewer."""
        labels = None if self.labels is None else self.labels[:count]
        sha256 = f"{self.sha256}, the first {count}"
        return replace(self, images=self.images[:count], labels=labels, names=self.names[:count], sha256=sha256)

    def take(self, indices: npt.NDArray[np.int64]) -> EvalSet:
        """Return an evaluation set of the images at `indices`, in memory."""
        labels = None if self.labels is None else self.labels[indices]
        names = tuple(self.names[index] for index in indices)
        sha256 = f"{self.sha256}, {indices.tolist()}"
        return replace(self, images=self.pixels(indices), labels=labels, names=names, sha256=sha256)

    def spread(self, count: int) -> EvalSet:
        """Return an evaluation set of at most `count` evenly spread images, in memory."""
        return self.take(spread(len(self), count))

    def pixels(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return a copy of the uint8 (n, H, W, C) images at `indices`; release the pages of the file that were read."""
        pixels = np.array(self.images[indices])
        mapped = getattr(self.images, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # otherwise resident memory grows to the size of the file
        return pixels

    def batches(self, size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield normalised float32 `(size, C, H, W)` batches in order; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self.preprocessing.normalize(self.pixels(np.arange(start, min(start + size, len(self)))))


def spread(length: int, count: int) -> npt.NDArray[np.int64]:
    """Return at most `count` ascending, evenly spread indices below `length`."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(np.int64)


def write(
    folder: Path,
    images: Iterable[npt.NDArray[np.uint8]],
    labels: npt.NDArray[np.int64] | None,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
) -> EvalSet:
    """Write `len(names)` uint8 (H, W, C) images one by one, then open the set; raises InputError without images."""
    if not names:
        raise InputError(f"{folder.name}: there are no images to write")
    if labels is not None and len(labels) != len(names):
        raise ValueError(f"{len(labels)} labels for {len(names)} images")
    shape = (len(names), *preprocessing.image_shape)
    with replacing(folder / "images.npy") as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        for row, image in zip(array, images, strict=True):
            row[:] = image
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
    """Open an evaluation set with memory-mapped images; raises InputError if it is malformed or was changed."""
    try:
        description = read_json(folder / "evalset.json")
        if description["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{folder}: evaluation set of schema version {description['schema_version']}, not 1")
        for name, digest in description["sha256"].items():
            if sha256_file(folder / f"{name}.npy") != digest:
                raise InputError(f"{folder}: {name}.npy was changed; make the evaluation set again")
        opened = EvalSet(
            images=read_array(folder / "images.npy"),
            labels=read_array(folder / "labels.npy") if "labels" in description["sha256"] else None,
            names=read_value(tuple[str, ...], description["names"]),
            classes=read_value(tuple[str, ...], description["classes"]),
            preprocessing=Preprocessing.from_json(description["preprocessing"]),
            sha256=description["sha256"]["images"],
        )
        _check(opened)
    except KeyError as error:
        raise InputError(f"{folder / 'evalset.json'}: not an evaluation set: it has no {error}") from error
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder}: not an evaluation set (evalset.json, images.npy, labels.npy): {error}") from error
    return opened


def read_array(path: Path) -> npt.NDArray[Any]:
    """Return the array of a .npy file; raises ValueError, EOFError or BadZipFile for any other file."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path.name} is an archive of arrays")
    return array


def _check(opened: EvalSet) -> None:
    shape, count = opened.preprocessing.image_shape, len(opened.names)
    if opened.images.dtype != np.uint8 or opened.images.shape != (count, *shape) or not count:
        raise ValueError(f"images are {opened.images.dtype} {opened.images.shape}, not uint8 {(max(count, 1), *shape)}")
    if opened.labels is None:
        return
    if opened.labels.dtype != np.int64 or opened.labels.shape != (count,):
        raise ValueError(f"labels are {opened.labels.dtype} {opened.labels.shape}, not int64 ({count},)")
    if opened.labels.min() < 0 or opened.labels.max() >= len(opened.classes):
        raise ValueError(
            f"labels from {opened.labels.min()} to {opened.labels.max()} for {len(opened.classes)} classes"
        )
