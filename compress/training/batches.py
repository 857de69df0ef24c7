"""Training batches that depend only on seed, epoch and position, for any number of workers."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from compress.images.archives import Slice, is_remote
from compress.training.augmentation import Augmenter, Pixels
from compress.training.config import FitConfig
from compress.training.context import Context
from compress.training.crops import random_resized_crop, resize
from runtimes import images
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing, Sides

Batch = tuple[torch.Tensor, torch.Tensor]
PARALLEL_DOWNLOADS = 16

Position = tuple[int, int, int, Sides]  # epoch, index of the image, number of its copy, height and width in pixels


class TrainingBatches:
    """Batches of every epoch, shuffled by seed and epoch; an incomplete last batch is dropped.

    config.batch_size counts the images of all processes: each of `ranks` processes gets its rows of every batch, so
    that together they see the batches of a single process. With config.repeats an epoch shows fewer images, each in
    several copies that are augmented differently (Hoffer et al., CVPR 2020). Workers live until `close`.
    """

    def __init__(self, context: Context, config: FitConfig, rank: int = 0, ranks: int = 1) -> None:
        """Prepare the loader. rank: of this process, from 0. Raises InputError if a rank would get no image."""
        self._images, self._seed, self._rank, self._ranks = _Images(context, config), context.seed, rank, ranks
        self._count, self._size = len(context.train), min(config.batch_size, len(context.train))
        if self._size < ranks:
            raise InputError(f"a batch of {self._size} images can't be shared by {ranks} processes; start fewer")
        self._positions = _Positions()
        self._sides, self._repeats = (context.preprocessing.height, context.preprocessing.width), config.repeats
        workers = config.workers if self._images.is_slow else 0
        self._loader: DataLoader[Batch] = DataLoader(
            self._images, batch_sampler=self._positions, collate_fn=_unchanged, num_workers=workers,
            persistent_workers=workers > 0, worker_init_fn=_ignore_signals,
            generator=torch.Generator(), pin_memory=context.device == "cuda",
        )  # fmt: skip

    @property
    def size(self) -> int:
        """Return the number of images in a batch, over all ranks."""
        return self._size

    @property
    def steps(self) -> int:
        """Return the number of batches in an epoch."""
        return self._count // self._size

    def epoch(self, epoch: int, first_step: int = 0, sides: Sides | None = None) -> Iterator[Batch]:
        """Yield uint8 (n, C, H, W) images, contiguous or channels_last, and int64 (n,) labels.

        first_step: earlier batches are skipped without being decoded. sides: (H, W), by default the preprocessing's.
        """
        order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
        steps = range(first_step * self._size, self.steps * self._size)
        positions = [(epoch, int(order[step // self._repeats]), step % self._repeats, sides or self._sides)
                     for step in steps]  # fmt: skip
        self._positions.batches = [
            positions[start : start + self._size][self._rank :: self._ranks]
            for start in range(0, len(positions), self._size)
        ]
        return iter(self._loader)

    def close(self) -> None:
        """Stop the workers."""
        del self._loader

    def __enter__(self) -> TrainingBatches:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class _Positions:
    """Batch sampler of the loader: yields the content of `batches` at the start of an epoch."""

    def __init__(self) -> None:
        self.batches: list[list[Position]] = []

    def __iter__(self) -> Iterator[list[Position]]:
        return iter(self.batches)


class _Images(Dataset[Batch]):
    """Batches of augmented images, indexed by lists of positions."""

    def __init__(self, context: Context, config: FitConfig) -> None:
        self._samples, self._preprocessing, self._seed = context.train, context.preprocessing, context.seed
        self._augment = config.augment
        self._augmenter = Augmenter(config.augment, context.preprocessing)
        self._prepared = context.prepared("train") if config.augment.crop_scale is None else None

    @property
    def is_slow(self) -> bool:
        """Return whether workers are worthwhile: images are decoded, or augmented in expensive ways."""
        return self._prepared is None or self._augmenter.is_slow

    def __getitems__(self, positions: list[Position]) -> Batch:
        """Return the batch."""
        channels, sides = self._preprocessing.channel_count, positions[0][3]
        pixels = np.empty((len(positions), *sides, channels), np.uint8)
        if self._prepared is None:  # random crops are resized as (C, H, W), and stay in that layout
            pixels = np.empty((len(positions), channels, *sides), np.uint8).transpose(0, 2, 3, 1)
        sources = self._sources([index for _, index, _, _ in positions])
        for row, source, position in zip(pixels, sources, positions, strict=True):
            row[:] = self._augmented(source, *position)
        labels = torch.tensor([self._samples[index].label for _, index, _, _ in positions], dtype=torch.int64)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), labels

    def _sources(self, indices: list[int]) -> list[images.Source]:
        """Return the sources of images; remote ones are downloaded in parallel, because each request has a latency."""
        if self._prepared is not None:
            return [b""] * len(indices)
        sources = [self._samples[index].source for index in indices]
        if not any(isinstance(source, Slice) and is_remote(source.path) for source in sources):
            return sources
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            return list(pool.map(images.content, sources))

    def _augmented(self, source: images.Source, epoch: int, index: int, copy: int, sides: Sides) -> Pixels:
        rng = np.random.default_rng((self._seed, epoch, index, copy) if copy else (self._seed, epoch, index))
        if self._prepared is None:
            pixels = random_resized_crop(source, self._preprocessing, self._augment, rng, sides)
        else:
            pixels = resize(self._prepared.images[index], self._preprocessing, sides)
        return self._augmenter(pixels, rng)


def _ignore_signals(worker: int) -> None:
    """Ignore SIGINT and SIGTERM, which terminals, schedulers and torchrun send to all processes of a group.

    The parent stops its workers after it has saved its state.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    """Return what __getitems__ returned, which is a batch already."""
    return batch


def normalize(pixels: torch.Tensor, preprocessing: Preprocessing, device: str) -> torch.Tensor:
    """Turn uint8 (N, C, H, W) into normalised float32 on the device, in channels_last layout.

    Rows of W x C numbers are scaled together, which is three times as fast on a CPU as scaling channels of 3 numbers.
    """
    scale, offset = _scale_and_offset(preprocessing, device, pixels.shape[3])
    moved = pixels.to(device, non_blocking=True).permute(0, 2, 3, 1)
    images = torch.empty(moved.shape, device=device)
    if pixels.is_contiguous():
        for channel in range(moved.shape[3]):  # twice as fast as one copy of all channels
            images[..., channel] = moved[..., channel]
    else:
        images.copy_(moved)
    images.view(-1, len(scale)).mul_(scale).add_(offset)
    return images.permute(0, 3, 1, 2)


@functools.cache
def _scale_and_offset(preprocessing: Preprocessing, device: str, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and offset for a row of pixels on the device; cached, because a copy to a GPU synchronises."""
    scale, offset = (torch.from_numpy(values).to(device) for values in preprocessing.scale_and_offset)
    return scale.repeat(width), offset.repeat(width)
