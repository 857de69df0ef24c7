"""Inspect a data set: counts per class, unreadable images, CMYK images and misplaced files."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from compress.images import jpeg
from compress.images.imagenet_layout import read_imagenet
from compress.images.samples import DECODING_THREADS, Data, Sample, why_unreadable
from compress.process.table import Table
from runtimes import images
from runtimes.console import Console

CHUNK = 4096  # images queued at a time
EXTREMES = 5  # number of classes listed with the fewest and the most images
CLASS_HEADINGS = "<class|images"


@dataclass(frozen=True)
class Contents:
    """Classes and images of a data set to inspect. problems: misplaced or missing files, one per line."""

    classes: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    problems: tuple[str, ...] = ()


def contents(data: Data) -> Contents:
    """Return the labelled splits of a data set that are not empty."""
    splits = {split: data.split(split) for split in ("train", "val", "test")}
    return Contents(data.classes, {split: samples for split, samples in splits.items() if samples})


def imagenet_contents(root: str) -> Contents:
    """Return an ImageNet in its own two splits, with the problems of its layout."""
    files = read_imagenet(root)
    return Contents(files.classes, {"train": tuple(files.train), "val": tuple(files.val)}, tuple(files.problems))


@dataclass(frozen=True)
class Inspection:
    """Results of `inspect`.

    counts: number of images by split and class. unreadable: (name, reason). cmyk: names. problems: as in Contents.
    """

    counts: dict[str, dict[str, int]]
    unreadable: tuple[tuple[str, str], ...]
    cmyk: tuple[str, ...]
    problems: tuple[str, ...]


def inspect(contents: Contents, console: Console) -> Inspection:
    """Decode every image and return the counts, the unreadable images and the CMYK images."""
    counts = {split: dict.fromkeys(contents.classes, 0) for split in contents.splits}
    for split, samples in contents.splits.items():
        for label, count in Counter(sample.label for sample in samples).items():
            if label is not None:
                counts[split][contents.classes[label]] = count
    everything = [sample for samples in contents.splits.values() for sample in samples]
    unreadable, cmyk = [], []
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(everything), CHUNK):  # pool.map on everything would queue a million calls
            chunk = everything[start : start + CHUNK]
            results = zip(chunk, pool.map(_inspect_image, chunk), strict=True)
            for done, (sample, (reason, is_cmyk)) in enumerate(results, 1):
                unreadable += [(sample.name, reason)] if reason else []
                cmyk += [sample.name] if is_cmyk else []
                if done % 64 == 0 or done == len(chunk):
                    console.progress("check images", start + done, len(everything))
    return Inspection(counts, tuple(unreadable), tuple(cmyk), contents.problems)


def tables(inspection: Inspection) -> list[Table]:
    """Return a table of the splits, then for each split its classes, or those with the fewest and the most images."""
    per_split = []
    for split, counts in inspection.counts.items():
        per_class = [count for count in counts.values() if count]
        cells = (sum(per_class), len(per_class), min(per_class, default=0), max(per_class, default=0))
        per_split.append([split, *map(str, cells)])
    result = [Table.of("", "<split|images|classes|fewest|most", per_split)]
    for split, counts in inspection.counts.items():
        ordered = sorted(counts.items(), key=lambda pair: (pair[1], pair[0]))
        if len(ordered) <= 2 * EXTREMES:
            result.append(_class_table(f"{split}: classes", ordered))
        elif ordered[0][1] != ordered[-1][1]:
            result.append(_class_table(f"{split}: classes with the fewest images", ordered[:EXTREMES]))
            result.append(_class_table(f"{split}: classes with the most images", ordered[: -EXTREMES - 1 : -1]))
    return result


def _class_table(title: str, counts: Iterable[tuple[str, int]]) -> Table:
    return Table.of(title, CLASS_HEADINGS, [(name, str(count)) for name, count in counts])


def _inspect_image(sample: Sample) -> tuple[str | None, bool]:
    """Return why an image can't be read (None if it can), and whether its colours are CMYK."""
    reason = why_unreadable(sample)
    return reason, reason is None and _is_cmyk(sample.source)


def _is_cmyk(source: images.Source) -> bool:
    from PIL import Image

    encoded = images.content(source)
    if jpeg.plain_size(encoded) is not None:
        return False
    with Image.open(io.BytesIO(encoded)) as image:
        return bool(image.mode == "CMYK")
