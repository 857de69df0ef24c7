"""Inspect a data set: counts per class, unreadable and CMYK images, misplaced files, copies and similar images."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt
from PIL import Image

from compress.images import jpeg
from compress.images.copies import CHUNK, DIGEST, ORDER, Digests, Member, digest, find_copies
from compress.images.imagenet_layout import read_imagenet
from compress.images.oddities import oddity
from compress.images.samples import DECODING_THREADS, Data, LeftOut, Sample, data_notes
from compress.images.similar import BANDS, MIN_PIXELS, SIDE, Hashes, nearest, perceptual_hash
from compress.process.table import Table
from runtimes import images
from runtimes.console import Console

EXTREMES = 5  # number of classes listed with the fewest and the most images
NO_LABEL = ""  # in place of the name of a class
CLASS_HEADINGS = "<class|images"


@dataclass(frozen=True)
class Contents:
    """Classes and images of a data set to inspect. problems: misplaced or missing files, one per line.

    left_out, folders: as in Data.
    """

    classes: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    problems: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)


def contents(data: Data) -> Contents:
    """Return the labelled splits of a data set that are not empty."""
    splits = {split: data.split(split) for split in ("train", "val", "test")}
    used = {split: samples for split, samples in splits.items() if samples}
    return Contents(data.classes, used, left_out=data.left_out, folders=data.folders)


def imagenet_contents(root: str) -> Contents:
    """Return an ImageNet in its own two splits, with the problems of its layout."""
    files = read_imagenet(root)
    splits = {"train": tuple(files.train), "val": tuple(files.val)}
    return Contents(files.classes, splits, tuple(files.problems), files.left_out.all())


@dataclass(frozen=True)
class Inspection:
    """Results of `inspect`.

    counts: number of images by split and class; the empty name counts images without labels. unreadable: (name,
    reason). cmyk: names. problems, left_out, folders: as in Contents. copies: (name, reason) of images that a run
    excludes, because a split that is judged has them too. contradictions: equal images with different labels.
    repeated: test images that are copies of other test images. similar: images that look like one of another split.
    These three hold one line for each pair. odd: (name, oddity) of images that are read nevertheless.
    """

    counts: dict[str, dict[str, int]]
    unreadable: tuple[tuple[str, str], ...]
    cmyk: tuple[str, ...]
    problems: tuple[str, ...]
    copies: tuple[tuple[str, str], ...] = ()
    contradictions: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    similar: tuple[str, ...] = ()
    odd: tuple[tuple[str, str], ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    folders: dict[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return lines about the splits' folders, the files that were left out, and classes without images."""
        return data_notes(self.folders, self.left_out, self.counts)


def inspect(contents: Contents, console: Console) -> Inspection:
    """Decode every image once; count, and find unreadable and CMYK images, copies, and images that look alike."""
    counts = {split: dict.fromkeys(contents.classes, 0) for split in contents.splits}
    for split, samples in contents.splits.items():
        for label, count in Counter(sample.label for sample in samples).items():
            counts[split][NO_LABEL if label is None else contents.classes[label]] = count
    order = sorted(contents.splits, key=ORDER.index)
    members = [Member(split, sample) for split in order for sample in contents.splits[split]]
    digests, hashes = np.zeros(len(members), DIGEST), np.zeros((len(members), BANDS), np.uint32)
    has_hash = np.zeros(len(members), bool)
    unreadable, cmyk, odd = [], [], []
    for index, (member, read) in enumerate(zip(members, _read(members), strict=True)):
        digests[index] = read.digest
        if read.hashed is not None:
            hashes[index], has_hash[index] = read.hashed, True
        unreadable += [(member.sample.name, read.reason)] if read.reason else []
        cmyk += [member.sample.name] if read.is_cmyk else []
        odd += [(member.sample.name, read.oddity)] if read.oddity else []
        if (index + 1) % 64 == 0 or index + 1 == len(members):
            console.progress("check images", index + 1, len(members))
    copies = find_copies(members, digests, contents.classes)
    return Inspection(
        counts,
        tuple(unreadable),
        tuple(cmyk),
        contents.problems,
        copies=tuple((image.name, image.reason) for image in copies.leaks),
        contradictions=copies.contradictions,
        repeated=copies.repeated,
        similar=tuple(_similar(members, digests, hashes, has_hash)),
        odd=tuple(odd),
        left_out=contents.left_out,
        folders=dict(contents.folders),
    )


def _similar(
    members: Sequence[Member], digests: Digests, hashes: Hashes, has_hash: npt.NDArray[np.bool_]
) -> Iterator[str]:
    """Yield a line for each image that looks like one of a later split, with the most similar of each split."""
    split_of = np.asarray([member.split for member in members])
    splits = list(dict.fromkeys(split_of.tolist()))
    for first, second in combinations(splits, 2):
        queries, references = (np.flatnonzero(has_hash & (split_of == split)) for split in (first, second))
        found, distances = nearest(hashes[queries], hashes[references])
        rows = zip(queries.tolist(), found.tolist(), distances.tolist(), strict=True)
        for query, index, distance in rows:
            if index >= 0 and digests[query] != digests[references[index]]:
                other = members[int(references[index])].sample.name
                yield f"{members[query].sample.name} and {other} ({distance} of {SIDE * SIDE} bits differ)"


def tables(inspection: Inspection) -> list[Table]:
    """Return a table of the splits, then for each split its classes, or those with the fewest and the most images."""
    per_split = []
    for split, counts in inspection.counts.items():
        per_class = [count for name, count in counts.items() if count and name != NO_LABEL]
        cells = (sum(counts.values()), len(per_class), min(per_class, default=0), max(per_class, default=0))
        per_split.append([split, *map(str, cells)])
    result = [Table.of("", "<split|images|classes|fewest|most", per_split)]
    for split, counts in inspection.counts.items():
        ordered = sorted(_of_classes(counts), key=lambda pair: (pair[1], pair[0]))
        if not any(count for _, count in ordered):
            continue
        if len(ordered) <= 2 * EXTREMES:
            result.append(_class_table(f"{split}: classes", ordered))
        elif ordered[0][1] != ordered[-1][1]:
            result.append(_class_table(f"{split}: classes with the fewest images", ordered[:EXTREMES]))
            result.append(_class_table(f"{split}: classes with the most images", ordered[: -EXTREMES - 1 : -1]))
    return result


def _of_classes(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield each class with its number of images."""
    return ((name, count) for name, count in counts.items() if name != NO_LABEL)


def _class_table(title: str, counts: Iterable[tuple[str, int]]) -> Table:
    return Table.of(title, CLASS_HEADINGS, [(name, str(count)) for name, count in counts])


@dataclass(frozen=True)
class _Read:
    """One image. reason: why it can't be decoded. digest: of its bytes. hashed: its perceptual hash, if it has one.

    oddity: what is odd about it.
    """

    reason: str | None = None
    digest: bytes = b""
    is_cmyk: bool = False
    hashed: npt.NDArray[np.uint32] | None = None
    oddity: str | None = None


def _read(members: Sequence[Member]) -> Iterator[_Read]:
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(members), CHUNK):
            yield from pool.map(lambda member: _read_image(member.sample), members[start : start + CHUNK])


def _read_image(sample: Sample) -> _Read:
    try:
        encoded = images.content(sample.source)
        image = _decoded(sample.source, encoded)
    except images.UnreadableImageError as error:
        return _Read(str(error))
    if jpeg.plain_size(encoded) is not None:
        return _Read(None, digest(encoded), hashed=perceptual_hash(image))
    return _Read(None, digest(encoded), _is_cmyk(encoded), perceptual_hash(image), oddity(encoded, image))


def _decoded(source: images.Source, encoded: bytes) -> Image.Image:
    """Return the image, a plain JPEG at the lowest scale that its hash allows."""
    if jpeg.plain_size(encoded) is not None:
        try:
            return images.as_image(jpeg.decode(encoded, min_width=MIN_PIXELS, min_height=MIN_PIXELS, min_factor=2))
        except ValueError:  # simplejpeg is stricter than Pillow, which decodes the image or names the reason
            pass
    return images.decode(source)


def _is_cmyk(encoded: bytes) -> bool:
    with Image.open(io.BytesIO(encoded)) as image:
        return bool(image.mode == "CMYK")
