"""Read every image once and exclude those that can't be decoded and those that are copies of test or val images."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from compress.images import jpeg, oddities
from compress.images.copies import CHUNK, DIGEST, ORDER, Digests, Member, digest, find_copies
from compress.images.samples import DECODING_THREADS, SPLITS, Data, Rejected
from runtimes import images
from runtimes.console import Console
from runtimes.errors import InputError

SEEN = ("train", "val")  # splits that a run learns from or chooses by


@dataclass(frozen=True)
class Examined:
    """Data without the excluded images, and the digests of the images of each split of SEEN."""

    data: Data
    digests: Mapping[str, Digests]


def examine(data: Data, limit: float, console: Console) -> Examined:
    """Decode every image once and exclude the unreadable ones and copies of test or val images in other splits.

    The excluded images are listed in `rejected`; copies that stay and odd images are named in `doubts`. Raises
    InputError if the share of unreadable images is above `limit`, or if a class or split would become empty.
    """
    members = [Member(split, sample) for split in ORDER for sample in data.split(split)]
    digests = np.zeros(len(members), DIGEST)
    unreadable, odd = [], []
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(members), CHUNK):
            chunk = members[start : start + CHUNK]
            for index, (member, read) in enumerate(zip(chunk, pool.map(_read_once, chunk), strict=True), start):
                digests[index] = read.digest
                if read.reason:
                    unreadable.append(Rejected(member.sample.name, member.split, read.reason))
                if read.oddity:
                    odd.append((member.sample.name, read.oddity))
                if (index + 1) % 64 == 0 or index + 1 == len(members):
                    console.progress("check images", index + 1, len(members))
    _require_readable(unreadable, limit, len(members))
    copies = find_copies(members, digests, data.classes)
    rejected = sorted((*unreadable, *copies.leaks), key=lambda image: SPLITS.index(image.split))
    kept = replace(exclude(data, tuple(rejected)), doubts=(*copies.doubts(), *oddities.lines(odd)))
    excluded = {(image.split, image.name) for image in rejected}
    is_kept = np.asarray([(member.split, member.sample.name) not in excluded for member in members], bool)
    split_of = np.asarray([member.split for member in members])
    return Examined(kept, {split: digests[is_kept & (split_of == split)] for split in SEEN})


class _Read(NamedTuple):
    """An image. reason: why it can't be decoded. digest: of its bytes. oddity: what is odd about it."""

    reason: str | None = None
    digest: bytes = b""
    oddity: str | None = None


def _read_once(member: Member) -> _Read:
    try:
        encoded = images.content(member.sample.source)
        odd = None if jpeg.is_whole(encoded) else oddities.oddity(encoded, images.decode(member.sample.source))
    except images.UnreadableImageError as error:
        return _Read(str(error))
    return _Read(None, digest(encoded), odd)


def exclude(data: Data, images: tuple[Rejected, ...]) -> Data:
    """Return the data without further images; raises InputError if a class or split would become empty."""
    kept = without(data, (*data.rejected, *images))
    _require_not_emptied(data, kept)
    return kept


def without(data: Data, rejected: tuple[Rejected, ...]) -> Data:
    """Return the data without the rejected images, which are listed in `rejected`."""
    names = {(image.split, image.name) for image in rejected}
    train, val, test, calibration = (
        tuple(sample for sample in data.split(split) if (split, sample.name) not in names) for split in SPLITS
    )
    return replace(data, train=train, val=val, test=test, calibration=calibration, rejected=rejected)


def _require_readable(unreadable: list[Rejected], limit: float, total: int) -> None:
    if len(unreadable) > limit * total:
        raise InputError(
            f"{len(unreadable)} of {total} images can't be read, more than max_unreadable_images: {limit:g} "
            f"allows; the first: {unreadable[0].name} ({unreadable[0].reason})"
        )


def _require_not_emptied(data: Data, kept: Data) -> None:
    """Raise InputError if the exclusion of images emptied a split, or a class of a split."""
    for split in SPLITS:
        reasons = [f"{image.name}: {image.reason}" for image in kept.rejected if image.split == split]
        cure = "repair the files, or give images that are in no other split"
        if reasons and not kept.split(split):
            raise InputError(f"no image of the split '{split}' can be used; the first: {reasons[0]}; {cure}")
        emptied = {sample.label for sample in data.split(split)} - {sample.label for sample in kept.split(split)}
        for label in sorted(label for label in emptied if label is not None):
            raise InputError(
                f"no image of the class '{data.classes[label]}' in the split '{split}' can be used; the first of the "
                f"split: {reasons[0]}; {cure}"
            )
