"""Training batches that depend on seed, epoch and position alone, whatever the number of workers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from compress.archives import Slice, is_remote
from compress.context import Context
from compress.training.config import Augment, FitConfig
from compress.training.crops import random_resized_crop, resize
from runtimes import images
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

Batch = tuple[torch.Tensor, torch.Tensor]
FETCHED_AT_ONCE = 16

Position = tuple[int, int, int]  # epoch, index of the image, side in pixels


class TrainingBatches:
    """Batches of every epoch, shuffled by seed and epoch; the last of an epoch is left out if it is smaller.

    config.batch_size is over all ranks: each of `ranks` processes gets its rows of every batch, so that together they
    see what one process would. Workers are kept from epoch to epoch, until `close`.
    """

    def __init__(self, context: Context, config: FitConfig, rank: int = 0, ranks: int = 1) -> None:
        """Start nothing yet. rank: of this process, from 0. Raises InputError where a rank would get no image."""
        self._images, self._seed, self._rank, self._ranks = _Images(context, config), context.seed, rank, ranks
        self._count, self._size = len(context.train), min(config.batch_size, len(context.train))
        if self._size < ranks:
            raise InputError(f"a batch of {self._size} images can't be shared by {ranks} processes; start fewer")
        self._positions = _Positions()
        self._side = context.preprocessing.crop
        workers = config.workers if self._images.decodes else 0
        self._loader: DataLoader[Batch] = DataLoader(
            self._images, batch_sampler=self._positions, collate_fn=_as_they_are, num_workers=workers,
            persistent_workers=workers > 0, generator=torch.Generator(), pin_memory=context.device == "cuda",
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Return how many batches an epoch has."""
        return self._count // self._size

    def epoch(self, epoch: int, first_step: int = 0, side: int | None = None) -> Iterator[Batch]:
        """Yield uint8 (n, 3, side, side) images in channels_last layout and int64 (n,) labels from a step on.

        first_step: batches before it are not even decoded. side: in pixels, that of the preprocessing unless given.
        """
        order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
        self._positions.batches = [
            [(epoch, int(index), side or self._side) for index in order[step * self._size : (step + 1) * self._size]]
            [self._rank :: self._ranks]
            for step in range(first_step, self.steps)
        ]  # fmt: skip
        return iter(self._loader)

    def close(self) -> None:
        """End the workers."""
        del self._loader

    def __enter__(self) -> TrainingBatches:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class _Positions:
    """What the loader's workers are asked for: what `batches` holds when an epoch begins."""

    def __init__(self) -> None:
        self.batches: list[list[Position]] = []

    def __iter__(self) -> Iterator[list[Position]]:
        return iter(self.batches)


class _Images(Dataset[Batch]):
    """Gives batches of augmented images for lists of (epoch, index, side)."""

    def __init__(self, context: Context, config: FitConfig) -> None:
        self._samples, self._preprocessing, self._seed = context.train, context.preprocessing, context.seed
        self._augment = config.augment
        self._prepared = context.prepared("train") if config.augment.crop_scale is None else None

    @property
    def decodes(self) -> bool:
        """Whether images are decoded each time."""
        return self._prepared is None

    def __getitems__(self, positions: list[Position]) -> Batch:
        """Return the batch."""
        side = positions[0][2]
        pixels = np.empty((len(positions), side, side, 3), np.uint8)
        sources = self._sources([index for _, index, _ in positions])
        for row, source, position in zip(pixels, sources, positions, strict=True):
            row[:] = self._augmented(source, *position)
        labels = torch.tensor([self._samples[index].label for _, index, _ in positions], dtype=torch.int64)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), labels

    def _sources(self, indices: list[int]) -> list[images.Source]:
        """Return where the images are; those at an address are fetched together, as each waits for the answer."""
        sources: list[images.Source] = [self._samples[index].source if self.decodes else b"" for index in indices]
        if not any(isinstance(source, Slice) and is_remote(source.path) for source in sources):
            return sources
        with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
            return list(pool.map(images.content, sources))

    def _augmented(self, source: images.Source, epoch: int, index: int, side: int) -> npt.NDArray[np.uint8]:
        rng = np.random.default_rng((self._seed, epoch, index))
        if self._prepared is None:
            pixels = random_resized_crop(source, self._preprocessing, self._augment, rng, side)
        else:
            pixels = resize(self._prepared.images[index], self._preprocessing, side)
        return flip(pixels, self._augment, rng)


def _as_they_are(batch: Any) -> Batch:
    made: Batch = batch
    return made


def normalize(pixels: torch.Tensor, preprocessing: Preprocessing, device: str) -> torch.Tensor:
    """Turn uint8 (N, 3, H, W) into normalised float32 on the device, in channels_last layout."""
    scale, offset = _scale_and_offset(preprocessing, device)
    moved = pixels.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
    return moved * scale + offset


@functools.cache
def _scale_and_offset(preprocessing: Preprocessing, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both as (1, 3, 1, 1) on the device; made once, as each copy to a GPU waits for it."""
    scale, offset = (torch.from_numpy(values).to(device).view(1, 3, 1, 1) for values in preprocessing.scale_and_offset)
    return scale, offset


def flip(pixels: npt.NDArray[np.uint8], augment: Augment, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Mirror and transpose an (H, W, 3) image, each with probability 1/2 if asked for."""
    hflip, vflip, transpose = rng.random(3) < 0.5
    return _turned(pixels, augment.hflip and hflip, augment.vflip and vflip, augment.transpose and transpose)


def variants(pixels: npt.NDArray[np.uint8], augment: Augment) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield everything that `flip` may make of an (H, W, 3) image."""
    for turns in product(*([False, True] if asked else [False] for asked in _asked(augment))):
        yield _turned(pixels, *turns)


def variants_per_image(augment: Augment) -> int:
    """Return how many `variants` there are."""
    return int(2 ** sum(_asked(augment)))


def _asked(augment: Augment) -> tuple[bool, bool, bool]:
    return augment.hflip, augment.vflip, augment.transpose


def _turned(pixels: npt.NDArray[np.uint8], hflip: bool, vflip: bool, transpose: bool) -> npt.NDArray[np.uint8]:
    if hflip:
        pixels = pixels[:, ::-1]
    if vflip:
        pixels = pixels[::-1]
    return pixels.transpose(1, 0, 2) if transpose else pixels
