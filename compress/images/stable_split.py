"""Split images by a hash of their names, so that added and removed images move no other image."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from compress.images.samples import Sample
from runtimes.console import counted
from runtimes.errors import InputError

Hashed = tuple[float, Sample]


def stable_split(
    samples: Iterable[tuple[Sample, str]], shares: tuple[float, ...], classes: tuple[str, ...], seed: int
) -> list[tuple[Sample, ...]]:
    """Split `(sample, key)` pairs into len(shares) + 1 parts: about `shares` of the images, then the rest.

    The hash of seed and key, in 0 to 1, decides alone: below the first share, part 0; below the sum of the first two,
    part 1; and so on. A part that gets no image of a class takes the one whose hash is nearest to its interval; only
    then can an added image move that one. Raises InputError for a class with fewer images than parts.
    """
    edges = [sum(shares[:count]) for count in range(len(shares) + 1)] + [1.0]
    by_class: dict[int, list[Hashed]] = defaultdict(list)
    for sample, key in samples:
        assert sample.label is not None
        by_class[sample.label].append((_hash(seed, key), sample))
    parts: list[list[Sample]] = [[] for _ in edges[1:]]
    for label, name in enumerate(classes):
        members = sorted(by_class[label], key=lambda pair: (pair[0], pair[1].name))
        if len(members) < len(parts):
            raise InputError(
                f"class '{name}' has {counted(len(members), 'image')}, fewer than the {len(parts)} splits; "
                "add images or give val and test folders"
            )
        for part, own in zip(parts, _divide(members, edges), strict=True):
            part += [sample for _, sample in own]
    return [tuple(sorted(part, key=lambda sample: sample.name)) for part in parts]


def _divide(members: list[Hashed], edges: list[float]) -> list[list[Hashed]]:
    """Divide the images of a class by the edges of the parts' intervals; each part gets at least one."""
    intervals = list(pairwise(edges))
    parts = [[pair for pair in members if low <= pair[0] < high] for low, high in intervals]
    for part, (low, high) in zip(parts, intervals, strict=True):
        if not part:
            donors = [pair for other in parts if len(other) > 1 for pair in other]
            nearest = min(donors, key=lambda pair: max(low - pair[0], pair[0] - high))
            next(other for other in parts if nearest in other).remove(nearest)
            part.append(nearest)
    return parts


def _hash(seed: int, key: str) -> float:
    """Return a number in 0 to 1, without 1, that is uniform over the keys."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:6], "big") / 2**48
