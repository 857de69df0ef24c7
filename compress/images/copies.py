"""Find images with equal bytes: copies of test images in other splits, and equal images with different labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.images.samples import DECODING_THREADS, Rejected, Sample
from runtimes import images

DIGEST_BYTES = 16  # per image: those of ImageNet take 20 MB
DIGEST = np.dtype(f"S{DIGEST_BYTES}")
CHUNK = 4096  # images queued at a time: pool.map on everything would queue a million calls
JUDGED = ("test", "val")  # a copy of one of their images in a later split of ORDER is a leak
ORDER = (*JUDGED, "train", "calibration")

Digests = npt.NDArray[np.bytes_]  # (N,) of type DIGEST


@dataclass(frozen=True, slots=True)
class Member:
    """An image of a split."""

    split: str
    sample: Sample


@dataclass(frozen=True)
class Copies:
    """Images with equal bytes.

    leaks: images of val, train and calibration that are copies of a test or val image. contradictions: copies with
    different labels. repeated: test images that are copies of another test image. Both as one line each.
    """

    leaks: tuple[Rejected, ...] = ()
    contradictions: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()

    def doubts(self) -> tuple[str, ...]:
        """Return one line for each kind of copy that is not excluded."""
        lines = []
        if self.contradictions:
            lines.append(
                f"equal images in different classes, so that a label is wrong: {len(self.contradictions)}, for example "
                f"{self.contradictions[0]}"
            )
        if self.repeated:
            lines.append(
                f"test images that are copies of another test image, so that intervals are too narrow: "
                f"{len(self.repeated)}, for example {self.repeated[0]}"
            )
        return tuple(lines)


def digest(encoded: bytes) -> bytes:
    """Return the digest of an image file's bytes."""
    return hashlib.sha256(encoded).digest()[:DIGEST_BYTES]


def digests_of(samples: Sequence[Sample]) -> Digests:
    """Return the digest of each image, empty for an image that can't be read."""

    def digest_of(sample: Sample) -> bytes:
        try:
            return digest(images.content(sample.source))
        except images.UnreadableImageError:
            return b""

    result = np.zeros(len(samples), DIGEST)
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(samples), CHUNK):
            chunk = samples[start : start + CHUNK]
            result[start : start + len(chunk)] = list(pool.map(digest_of, chunk))
    return result


def find_copies(members: Sequence[Member], digests: Digests, classes: tuple[str, ...]) -> Copies:
    """Return the images with equal bytes. members: in ORDER of their splits."""
    leaks: list[Rejected] = []
    contradictions: list[str] = []
    repeated: list[str] = []
    for group in sorted(_equal(digests), key=lambda group: int(group[0])):
        first, *others = (members[index] for index in group)
        for other in others:
            pair = f"{first.sample.name} and {other.sample.name}"
            if other.split != first.split and first.split in JUDGED:
                reason = f"identical to the {first.split} image {first.sample.name}"
                leaks.append(Rejected(other.sample.name, other.split, reason))
            elif other.split == first.split == "test":
                repeated.append(pair)
            one, another = first.sample.label, other.sample.label
            if one is not None and another is not None and one != another:
                contradictions.append(f"{pair} ({classes[one]}, {classes[another]})")
    return Copies(tuple(leaks), tuple(contradictions), tuple(repeated))


def _equal(digests: Digests) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the sorted indices of each group of equal digests; empty digests belong to none."""
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    for start in np.flatnonzero(np.diff(starts) > 1):
        group = order[starts[start] : starts[start + 1]]
        if digests[group[0]]:
            yield group
