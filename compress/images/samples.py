"""Data sets: samples, seeded stratified splits, calibration images, and evaluation sets."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtimes import evalset, images
from runtimes.console import Console, counted
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

SPLITS = ("train", "val", "test", "calibration")
DECODING_THREADS = max(4, os.cpu_count() or 1)  # decoders release the GIL


@dataclass(frozen=True, slots=True)
class Sample:
    """One image. name: identifies it in splits.json and reports. label: None for images without a class."""

    name: str
    source: images.Source
    label: int | None


@dataclass(frozen=True)
class Rejected:
    """An image that was excluded: it can't be decoded, or is a copy of a test or val image."""

    name: str
    split: str
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """Files of a data set's folders that are not used. reason: why; count: how many; example: the path of one."""

    reason: str
    count: int
    example: str

    def line(self) -> str:
        """Return one line for people."""
        return f"left out: {self.count} file{'s' if self.count > 1 else ''}: {self.reason}, for example {self.example}"


@dataclass(frozen=True)
class Data:
    """A data set: class names and four splits; train, val and test are disjoint.

    calibration: empty unless the data set has a separate folder for it; `draw_calibration` then draws from train.
    rejected: the images that `exclusion.examine` excluded. doubts: what it found doubtful, one line each.
    left_out: files that are not images of a class. folders: the folder of each split that has one.
    """

    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    calibration: tuple[Sample, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    doubts: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return lines about the splits' folders, the files that were left out, and classes without images."""
        return data_notes(self.folders, self.left_out, self.images_per_class())

    def images_per_class(self) -> dict[str, dict[str, int]]:
        """Return the number of images by split and class; the empty name counts images without labels."""
        counts = {}
        for split in ("train", "val", "test"):
            per_class = Counter(sample.label for sample in self.split(split))
            counts[split] = {name: per_class[label] for label, name in enumerate(self.classes)}
            counts[split] |= {"": per_class[None]} if per_class[None] else {}
        return counts

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of one of `SPLITS`."""
        samples: tuple[Sample, ...] = getattr(self, name)
        return samples

    def fingerprint(self) -> str:
        """Return a sha256 over splits, names, labels and each file's size and modification time (or its bytes)."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in SPLITS:
            for sample in self.split(split):
                digest.update(repr((split, sample.name, sample.label, _identity(sample.source))).encode())
        return digest.hexdigest()

    def splits_json(self) -> dict[str, tuple[str, ...] | dict[str, int | None]]:
        """Return the content of splits.json: the class names, and for each split the labels by name of image."""
        return {
            "classes": self.classes,
            **{split: {sample.name: sample.label for sample in self.split(split)} for split in SPLITS},
        }


def data_notes(
    folders: Mapping[str, str], left_out: Iterable[LeftOut], images_per_class: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Return one line for each thing that a reader may not expect.

    These are each split's folder, each kind of file that was left out, each split without a class, and numbered classes
    in the order of text.
    """
    lines = [f"{split}: {folder}" for split, folder in folders.items()]
    lines += [files.line() for files in left_out]
    lines += _order_of_numbers([name for name in next(iter(images_per_class.values()), {}) if name])
    for split, counts in images_per_class.items():
        absent = [name for name, count in counts.items() if not count]
        if absent and any(count for name, count in counts.items() if name):
            listed = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
            lines.append(f"{split}: no images of {len(absent)} of {len(counts)} classes: {listed}")
    return lines


def _order_of_numbers(classes: Sequence[str]) -> list[str]:
    """Return a line if the names of the classes are numbers in the order of text, so that output 2 is class 10."""
    if not all(name.isdecimal() for name in classes) or list(classes) != sorted(classes):
        return []
    moved = next((index for index, name in enumerate(sorted(classes, key=int)) if name != classes[index]), None)
    if moved is None:
        return []
    return [f"classes: numbers in the order of text, as in {', '.join(classes[: moved + 2])}: output {moved} of the "
            f"network is class {classes[moved]}; a file in data.classes gives another order"]  # fmt: skip


def stratified_split(
    samples: Iterable[tuple[Sample, object]], shares: tuple[float, ...], classes: tuple[str, ...], seed: int
) -> list[tuple[Sample, ...]]:
    """Split `(sample, stratum)` pairs into len(shares) + 1 parts: one per share, then the rest.

    The images of each class and stratum are shuffled by the seed and divided by the rounded shares; every part gets at
    least one image of each class. Raises InputError for a class with fewer images than parts.
    """
    rng = np.random.default_rng(seed)
    strata: dict[tuple[int, str], list[Sample]] = defaultdict(list)
    for sample, stratum in samples:
        assert sample.label is not None
        strata[sample.label, repr(stratum)].append(sample)
    parts: list[list[Sample]] = [[] for _ in range(len(shares) + 1)]
    per_class = Counter(sample.label for members in strata.values() for sample in members)
    for label, name in enumerate(classes):
        if per_class[label] < len(parts):
            raise InputError(
                f"class '{name}' has {counted(per_class[label], 'image')}, fewer than the {len(parts)} splits; "
                "add images or give val and test folders"
            )
    for key in sorted(strata):
        members = [strata[key][index] for index in rng.permutation(len(strata[key]))]
        for part, share in enumerate(shares):
            count = round(share * len(strata[key]))
            parts[part] += members[:count]
            members = members[count:]
        parts[-1] += members
    _fill_gaps(parts, len(classes))
    return [tuple(sorted(part, key=lambda sample: sample.name)) for part in parts]


def _fill_gaps(parts: list[list[Sample]], classes: int) -> None:
    """Move one image of a class into each part that has none, from the part that has the most."""
    counts = [Counter(sample.label for sample in part) for part in parts]
    for label in range(classes):
        for part, count in zip(parts, counts, strict=True):
            if not count[label]:
                donor = max(range(len(parts)), key=lambda index: counts[index][label])
                moved = next(sample for sample in parts[donor] if sample.label == label)
                parts[donor].remove(moved)
                part.append(moved)
                counts[donor][label] -= 1
                count[label] += 1


def draw_calibration(data: Data, count: int, seed: int) -> tuple[Sample, ...]:
    """Return at most `count` images to calibrate with, drawn by the seed from calibration, or else train."""
    pool = data.calibration or data.train
    if not pool:
        raise InputError("there are no calibration images: the data set has no train split; give data.calibration")
    chosen = np.random.default_rng(seed).permutation(len(pool))[:count]
    return tuple(pool[index] for index in sorted(chosen))


def write_evalset(
    folder: Path,
    samples: tuple[Sample, ...],
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    console: Console,
    what: str = "prepare images",
) -> evalset.EvalSet:
    """Decode, resize and crop the samples and write them as an evaluation set, in memory of constant size.

    what: description of the progress on the console.
    """
    labels = None
    if all(sample.label is not None for sample in samples):
        labels = np.asarray([sample.label for sample in samples], np.int64)
    pixels = _preprocessed(samples, preprocessing, lambda done: console.progress(what, done, len(samples)))
    return evalset.write(folder, pixels, labels, tuple(sample.name for sample in samples), classes, preprocessing)


def _preprocessed(
    samples: tuple[Sample, ...], preprocessing: Preprocessing, done: Callable[[int], None]
) -> Iterator[npt.NDArray[np.uint8]]:
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(
            0, len(samples), 64
        ):  # pool.map on all samples would decode them faster than they are written
            chunk = samples[start : start + 64]
            yield from pool.map(lambda sample: images.read(sample.source, preprocessing), chunk)
            done(start + len(chunk))


def _identity(source: images.Source) -> object:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, Path):
        status = source.stat()
        return status.st_size, status.st_mtime_ns
    return repr(source)
