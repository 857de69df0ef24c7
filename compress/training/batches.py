"""Training batches that depend on seed, epoch and position alone, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from compress.context import Context
from compress.dataset import Sample
from compress.training.config import Augment, FitConfig
from runtimes import images
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

Batch = tuple[torch.Tensor, torch.Tensor]
CROP_RATIO = (3 / 4, 4 / 3)  # width / height of a random crop, as in Inception and torchvision


class _Images(Dataset[tuple[torch.Tensor, int]]):
    """Gives the augmented uint8 (3, crop, crop) image for an (epoch, index) pair."""

    def __init__(
        self,
        samples: tuple[Sample, ...],
        prepared: EvalSet | None,
        preprocessing: Preprocessing,
        augment: Augment,
        seed: int,
    ) -> None:
        self._samples, self._prepared = samples, prepared
        self._preprocessing, self._augment, self._seed = preprocessing, augment, seed

    def __getitem__(self, position: tuple[int, int]) -> tuple[torch.Tensor, int]:
        epoch, index = position
        rng = np.random.default_rng((self._seed, epoch, index))
        if self._prepared is None:
            pixels = random_resized_crop(
                images.decode(self._samples[index].source), self._preprocessing, self._augment, rng
            )
        else:
            pixels = self._prepared.images[index]
        label = self._samples[index].label
        assert label is not None
        return torch.from_numpy(np.ascontiguousarray(flip(pixels, self._augment, rng).transpose(2, 0, 1))), label


def train_batches(context: Context, config: FitConfig, epoch: int) -> Iterator[Batch]:
    """Yield one epoch of `(N, 3, crop, crop)` uint8 images and `(N,)` int64 labels, shuffled by seed and epoch.

    The last batch is left out if it is smaller than the others, because batch statistics would be noisier.
    """
    prepared = context.prepared("train") if config.augment.crop_scale is None else None
    data = _Images(context.train, prepared, context.preprocessing, config.augment, context.seed)
    order = np.random.default_rng((context.seed, epoch)).permutation(len(context.train)).tolist()
    size = min(config.batch_size, len(order))
    batches = [
        [(epoch, index) for index in order[start : start + size]] for start in range(0, len(order) - size + 1, size)
    ]
    return iter(DataLoader(data, batch_sampler=batches, num_workers=0 if prepared else config.workers))


def batches_per_epoch(samples: int, config: FitConfig) -> int:
    """Return how many batches `train_batches` yields."""
    return samples // min(config.batch_size, samples)


def normalize(pixels: torch.Tensor, preprocessing: Preprocessing, device: str) -> torch.Tensor:
    """Turn uint8 (N, 3, H, W) into normalised float32 on the device, in channels_last layout."""
    scale, offset = (torch.from_numpy(values).to(device).view(1, 3, 1, 1) for values in preprocessing.scale_and_offset)
    moved = pixels.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
    return moved * scale + offset


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


def random_resized_crop(
    image: Image.Image, preprocessing: Preprocessing, augment: Augment, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Cut a random part and resize it to (crop, crop, 3) (Szegedy et al., CVPR 2015, section 6).

    The area is uniform in crop_scale, the logarithm of the ratio uniform in 3/4 to 4/3; after ten misses the centre.
    """
    assert augment.crop_scale is not None
    side = (preprocessing.crop, preprocessing.crop)
    for _ in range(10):
        area = image.width * image.height * rng.uniform(*augment.crop_scale)
        ratio = float(np.exp(rng.uniform(*np.log(CROP_RATIO))))
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < width <= image.width and 0 < height <= image.height:
            left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
            box = (int(left), int(top), int(left) + width, int(top) + height)
            return np.asarray(image.resize(side, images.resampling(preprocessing), box=box))
    return images.resize_and_crop(image, preprocessing)
