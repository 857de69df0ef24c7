"""What is in a data set: counts per class, images that can't be read or are unusual, things in the wrong place."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from compress.data import imagenet
from compress.images import jpeg
from compress.images.samples import DECODING_THREADS, Data, Sample, why_unreadable
from compress.recipe import named_data, plugins
from runtimes import images
from runtimes.console import Console

DEFAULT = "imagenet"
CHUNK = 4096  # images that are asked for at a time
SHOWN = 5  # classes with the fewest and the most images


@dataclass(frozen=True)
class Inspection:
    """counts: split, class, images. unreadable, cmyk: (name, reason or mode). problems: one line each."""

    counts: dict[str, dict[str, int]]
    unreadable: tuple[tuple[str, str], ...]
    cmyk: tuple[str, ...]
    problems: tuple[str, ...]


def inspect(named: str, console: Console) -> Inspection:
    """Decode every image of `NAME:ROOT`, or of an ImageNet's ROOT, and return what was found."""
    classes, splits, problems = _found(named)
    counts = {split: dict.fromkeys(classes, 0) for split in splits}
    for split, samples in splits.items():
        for label, count in Counter(sample.label for sample in samples).items():
            if label is not None:
                counts[split][classes[label]] = count
    everything = [sample for samples in splits.values() for sample in samples]
    unreadable, cmyk = [], []
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(everything), CHUNK):  # pool.map alone would queue a million
            chunk = everything[start : start + CHUNK]
            for done, (sample, (reason, is_cmyk)) in enumerate(zip(chunk, pool.map(_look, chunk), strict=True), 1):
                unreadable += [(sample.name, reason)] if reason else []
                cmyk += [sample.name] if is_cmyk else []
                if done % 64 == 0 or done == len(chunk):
                    console.progress("check images", start + done, len(everything))
    return Inspection(counts, tuple(unreadable), tuple(cmyk), tuple(problems))


def tables(found: Inspection) -> dict[str | None, list[list[str]]]:
    """Return titled lines of cells: the splits, then the classes that have the fewest and the most images."""
    rows = [["split", "images", "classes", "fewest", "most"]]
    for split, counts in found.counts.items():
        per_class = [count for count in counts.values() if count]
        rows.append([split, str(sum(per_class)), str(len(per_class)), str(min(per_class, default=0)),
                     str(max(per_class, default=0))])  # fmt: skip
    shown: dict[str | None, list[list[str]]] = {None: rows}
    for split, counts in found.counts.items():
        ordered = sorted(counts.items(), key=lambda pair: (pair[1], pair[0]))
        if len(ordered) <= 2 * SHOWN:
            shown[f"{split}: classes"] = _classes(ordered)
        elif ordered[0][1] != ordered[-1][1]:
            shown[f"{split}: the classes with the fewest images"] = _classes(ordered[:SHOWN])
            shown[f"{split}: the classes with the most images"] = _classes(ordered[: -SHOWN - 1 : -1])
    return shown


def _classes(pairs: Iterable[tuple[str, int]]) -> list[list[str]]:
    return [["class", "images"], *([name, str(count)] for name, count in pairs)]


def _found(named: str) -> tuple[tuple[str, ...], dict[str, tuple[Sample, ...]], list[str]]:
    """Return the classes, the images of each split that has any, and what is in the wrong place."""
    name, _, root = named.partition(":")
    if name not in plugins.names("data"):
        name, root = DEFAULT, named
    if name == DEFAULT:
        found = imagenet.find(root)
        return found.classes, {"train": tuple(found.train), "val": tuple(found.val)}, found.problems
    data: Data = named_data.load(named)
    return data.classes, {split: data.split(split) for split in ("train", "val", "test") if data.split(split)}, []


def _look(sample: Sample) -> tuple[str | None, bool]:
    """Return why an image can't be read, and whether its colours are those of printers."""
    reason = why_unreadable(sample)
    return reason, reason is None and _is_cmyk(sample.source)


def _is_cmyk(source: images.Source) -> bool:
    from PIL import Image

    encoded = images.content(source)
    if jpeg.plain_size(encoded) is not None:
        return False
    with Image.open(io.BytesIO(encoded)) as image:
        return bool(image.mode == "CMYK")
