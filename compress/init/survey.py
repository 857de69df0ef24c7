"""Inspect a folder of images: classes, splits, sizes, channels, and what is wrong or left out."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from compress.data import imagefolder
from compress.images.exclusion import examine
from compress.images.samples import Data, data_notes
from compress.process.table import Table
from runtimes.console import Console
from runtimes.errors import InputError

SPLITS = ("train", "val", "test")
MOST_UNREADABLE = 0.2  # share of images; a recipe normally allows 0.01
IMBALANCED = 2.0  # images of the largest class / images of the smallest one
FEW_TRAINING_IMAGES = 20  # of a class
MIXED_SIZES, ELONGATED = 2.0, 1.4  # largest / smallest shorter side; longer / shorter side
ALIKE, SHARE_ALIKE = 1.3, 0.8  # factor between the proportions of images, and share of those within it
FEW_IMAGES, VERY_FEW_IMAGES, SEEDS = 2000, 200, 20  # up to which splits are chosen carefully; seeds to choose from
LARGE_TEST_SHARE = 0.3  # of very few images
LISTED_CLASSES, NAMES_SHOWN = 20, 3
SHARE_OF_FOLDER = re.compile(r" \(\d+ of its \d+ images\)$")  # ends the description of a split without a folder
GREY_MODES, MODES_OF_16_BITS = ("1", "L", "LA"), ("I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True, eq=False)
class Survey:
    """A folder of images. config: section `data` of a recipe. data: what a run uses of it.

    total, unreadable: number of images in the folder, and of those that can't be decoded. sizes: width and height of
    each image as stored, (N, 2). modes: number of images by Pillow's mode.
    """

    config: imagefolder.Config
    data: Data
    total: int
    unreadable: int
    sizes: npt.NDArray[np.int64]
    modes: Counter[str]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of labelled images by split and class, (3, classes)."""
        labels = [[sample.label for sample in self.data.split(split) if sample.label is not None] for split in SPLITS]
        return np.asarray([np.bincount(np.asarray(of, np.int64), minlength=len(self.data.classes)) for of in labels])

    @property
    def imbalance(self) -> float:
        """Return the images of the largest class / those of the smallest one."""
        images = self.counts.sum(axis=0)
        return float(images.max() / max(1, images.min()))

    @property
    def typical_side(self) -> int:
        """Return the median of the shorter sides, in pixels."""
        return int(np.median(self.sides[:, 0]))

    @property
    def sides(self) -> npt.NDArray[np.int64]:
        """Return the shorter and the longer side of each image, (N, 2)."""
        return np.sort(self.sizes, axis=1)

    @property
    def is_grey(self) -> bool:
        """Return whether all images are stored with one channel, apart from transparency."""
        return set(self.modes) <= {*GREY_MODES, *MODES_OF_16_BITS}

    def long_crop(self, side: int) -> tuple[int, int] | None:
        """Return (height, width) of a crop in the proportions of the images; None if they are not long or differ.

        side: of the shorter side. The longer one is a multiple of 32.
        """
        proportions = self.sizes[:, 0] / self.sizes[:, 1]
        usual = float(np.median(proportions))
        elongation = max(usual, 1 / usual)
        alike = np.mean(np.abs(np.log(proportions / usual)) < math.log(ALIKE))
        if elongation <= ELONGATED or alike < SHARE_ALIKE:
            return None
        longer = 32 * max(1, round(side * elongation / 32))
        return (side, longer) if usual > 1 else (longer, side)

    @property
    def root(self) -> Path:
        """Return the folder."""
        assert self.config.root is not None
        return self.config.root

    @property
    def split_off(self) -> tuple[str, ...]:
        """Return the splits that are a part of the training folder."""
        return tuple(split for split in SPLITS if _is_split_off(self.data, split))

    @property
    def test_share(self) -> float | None:
        """Return the share of all images that become test images, None if these have their own folder."""
        return self.config.test_share if "test" in self.split_off else None

    def test_labels(self) -> npt.NDArray[np.int64] | None:
        """Return the sorted labels of the test images, None if any has none."""
        labels = [sample.label for sample in self.data.test if sample.label is not None]
        return np.sort(np.asarray(labels, np.int64)) if len(labels) == len(self.data.test) else None


def survey(root: Path, console: Console) -> Survey:
    """Read every image of a folder once.

    Raises InputError for a folder that is no set of class folders, without training images, or with many unreadable
    images.
    """
    config, data = _split(root)
    if not data.train:
        raise InputError(f"{root}: holds no training images; give a folder with train/CLASS/image.jpg")
    total = sum(len(data.split(split)) for split in SPLITS)
    kept = examine(data, MOST_UNREADABLE, console).data
    copies = sum("identical to" in image.reason for image in kept.rejected)
    headers = list(_headers(kept, console))
    sizes = np.asarray([size for size, _ in headers], np.int64).reshape(-1, 2)
    return Survey(config, kept, total, len(kept.rejected) - copies, sizes, Counter(mode for _, mode in headers))


def _split(root: Path) -> tuple[imagefolder.Config, Data]:
    """Return the data set in splits of about the wanted sizes.

    A hash of the names decides where an image goes, so that the sizes of small splits vary. Of few images, more become
    test images, and the seed is the first of those whose splits have the most even numbers of images of each class.
    """
    config = imagefolder.Config(root=Path(os.path.abspath(root)))  # not resolved: a link may be moved to newer images
    data = imagefolder.load(config)
    images = sum(len(data.split(split)) for split in SPLITS)
    if images > FEW_IMAGES or not _is_split_off(data, "test"):
        return config, data
    share = LARGE_TEST_SHARE if images <= VERY_FEW_IMAGES else config.test_share
    configs = [config.model_copy(update={"seed": seed, "test_share": share}) for seed in range(SEEDS)]
    splits = [(_unevenness(data, share), candidate.seed, candidate, data)
              for candidate in configs for data in [imagefolder.load(candidate)]]  # fmt: skip
    _, _, config, data = min(splits, key=lambda split: split[:2])
    return config, data


def _is_split_off(data: Data, split: str) -> bool:
    """Return whether the images of a split are a part of the training folder."""
    return SHARE_OF_FOLDER.search(data.folders.get(split, "")) is not None


def _unevenness(data: Data, test_share: float) -> float:
    """Return how far the numbers of test images of the classes are from their share: the largest relative distance."""
    counts = data.images_per_class()
    wanted = {name: test_share * sum(counts[split][name] for split in SPLITS) for name in data.classes}
    return max(abs(counts["test"][name] - wanted[name]) / wanted[name] for name in data.classes)


def _headers(data: Data, console: Console) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield the size and the mode of each image, without decoding it."""
    samples = [sample for split in SPLITS for sample in data.split(split)]
    for number, sample in enumerate(samples, 1):
        assert isinstance(sample.source, Path)
        with Image.open(sample.source) as image:
            yield image.size, image.mode
        if number % 64 == 0 or number == len(samples):
            console.progress("read sizes", number, len(samples))


def table(result: Survey) -> Table:
    """Return the number of images by class and split; of many classes, those with the fewest and the most images."""
    counts = result.counts
    order = np.argsort(-counts.sum(axis=0), kind="stable")
    rows = [_row(result.data.classes[label], counts[:, label]) for label in order]
    if len(rows) > LISTED_CLASSES:
        half = LISTED_CLASSES // 4
        rows = [*rows[:half], [f"… {len(rows) - 2 * half} more classes", "", "", "", ""], *rows[-half:]]
    images = np.asarray([len(result.data.split(split)) for split in SPLITS])
    if np.any(unlabelled := images - counts.sum(axis=1)):
        rows.append(_row("without a class", unlabelled))
    return Table.of("", "<class|train|val|test|all", [*rows, _row("all", images)])


def _row(name: str, counts: npt.NDArray[np.int64]) -> list[str]:
    return [name, *(str(count) for count in counts), str(counts.sum())]


def warnings(result: Survey, side: int) -> list[str]:
    """Return one line for each thing that makes results worse. side: of the network's input, in pixels."""
    return [*_class_warnings(result), *_image_warnings(result, side), *_file_warnings(result)]


def notes(result: Survey) -> list[str]:
    """Return one line for each thing that a user may not expect: folders of splits, files that are left out, grey."""
    grey, deep = (sum(result.modes[mode] for mode in modes) for modes in (GREY_MODES, MODES_OF_16_BITS))
    lines = [f"{grey} of {len(result.sizes)} images are grey; they are read as RGB"] if grey else []
    if deep:
        lines.append(f"{deep} of {len(result.sizes)} images have 16 bits per pixel; they are scaled to 8 bits")
    data = result.data
    folders = {} if result.test_share else data.folders
    return [*data_notes(folders, data.left_out, data.images_per_class()), *lines]


def _class_warnings(result: Survey) -> Iterator[str]:
    counts, classes = result.counts, result.data.classes
    images = counts.sum(axis=0)
    if result.imbalance > IMBALANCED:
        largest, smallest = int(images.argmax()), int(images.argmin())
        yield (
            f"imbalanced: {images[largest]} images of '{classes[largest]}', {images[smallest]} of "
            f"'{classes[smallest]}'; accuracy is judged as the mean of the classes (balanced accuracy)"
        )
    few = [f"'{classes[label]}' ({counts[0, label]})" for label in np.argsort(counts[0], kind="stable")
           if counts[0, label] < FEW_TRAINING_IMAGES]  # fmt: skip
    if few:
        yield (
            f"too few images to train on in {len(few)} of {len(classes)} classes: {_listed(few)}; "
            f"add images, {FEW_TRAINING_IMAGES} of each class for training at the least, better 100"
        )


def _image_warnings(result: Survey, side: int) -> Iterator[str]:
    shorter, longer = result.sides.T
    smallest, largest = int(shorter.min()), int(shorter.max())
    if largest > MIXED_SIZES * smallest:
        yield f"sizes differ: the shorter sides are {smallest} to {largest} px, with a median of {result.typical_side}"
    elongated = int(np.sum(longer > ELONGATED * shorter))
    if elongated:
        crop = result.long_crop(side)
        cure = f"set crop: {list(crop)} in the recipe" if crop else "cut them into squares"
        yield f"long images, of which only the centre square is used: {elongated}; {cure} if what matters is outside"
    small = int(np.sum(shorter < side / 2))
    if small:
        yield f"images enlarged more than twice: {small}, from {smallest} px on the shorter side to {side}"


def _file_warnings(result: Survey) -> Iterator[str]:
    rejected = result.data.rejected
    copies = [image for image in rejected if "identical to" in image.reason]
    unreadable = [image for image in rejected if image not in copies]
    for images, what in ((unreadable, "images that can't be read, left out"), (copies, "copies, left out")):
        if images:
            yield f"{what}: {len(images)}, for example {images[0].name}: {images[0].reason}"
    yield from result.data.doubts


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
