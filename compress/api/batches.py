"""The argument `data` of `compress.prune`: a data loader, or images with their labels, as batches of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from compress.api import modules
from compress.api.images import Images, items_of, samples_of, size_of
from compress.images.samples import write_evalset
from compress.pruning.importance import BATCH, IMAGES
from compress.training.batches import normalize
from export.inputs.options import USUAL_CHANNELS, PreprocessingOptions
from runtimes.console import Console
from runtimes.errors import InputError
from runtimes.evalset import spread
from runtimes.preprocessing import Preprocessing

Batch: TypeAlias = tuple[Tensor, Tensor]
Data: TypeAlias = Iterable[Batch] | tuple[Images, Sequence[int]]


def is_images_with_labels(data: Data) -> bool:
    """Return whether data are a tuple of images and labels, not batches."""
    return isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], (tuple, Tensor))


def loaded_batches(data: Iterable[Batch]) -> list[Batch]:
    """Return the first 512 images of a data loader in batches of 32; raises InputError for batches of another form.

    A tuple of two tensors is one batch.
    """
    batches: list[Batch] = []
    if not isinstance(data, Iterable):
        raise InputError(f"data: must be a data loader, or a tuple of images and labels, not {type(data).__name__}")
    is_batch = isinstance(data, tuple) and all(isinstance(part, Tensor) for part in data)
    for batch in [data] if is_batch else data:
        images, labels = _checked(batch)
        batches += _in_batches(images, labels)
        if len(batches) * BATCH >= IMAGES:
            break
    if not batches:
        raise InputError("data: the data loader gives no batches")
    return batches


def _checked(batch: object) -> Batch:
    parts = list(batch) if isinstance(batch, (tuple, list)) else []
    if len(parts) != 2 or not all(isinstance(part, Tensor) for part in parts):
        raise InputError(f"data: each batch must be (images, labels), two tensors, not {type(batch).__name__}")
    images, labels = parts[0].detach().cpu(), parts[1].detach().cpu()
    if images.ndim != 4 or not images.is_floating_point():
        raise InputError("data: images must be normalized floats of shape (N, C, H, W), not "
                         f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}")  # fmt: skip
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise InputError(f"data: labels must be class numbers of shape ({len(images)},), not "
                         f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}")  # fmt: skip
    return images.float(), labels.long()


def prepared_batches(
    network: nn.Module, images: Images, labels: Sequence[int], options: PreprocessingOptions, folder: Path,
    console: Console,
) -> list[Batch]:  # fmt: skip
    """Return at most 512 of the images, normalized, in batches of 32. folder: for temporary files."""
    items, numbers = items_of(images), np.asarray(labels)
    if isinstance(items, Path):
        raise InputError("data: a folder has no order that labels could follow; give a list of paths")
    if numbers.shape != (len(items),) or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"data: labels must be {len(items)} class numbers, one for each image, not "
                         f"{numbers.dtype} {numbers.shape}")  # fmt: skip
    preprocessing = modules.preprocessing_for(network, size_of(items), options)
    modules.say_preprocessing(preprocessing, console)
    samples = samples_of(items, IMAGES, folder)
    prepared = write_evalset(folder / "images", samples, (), preprocessing, console)
    chosen = torch.from_numpy(numbers[spread(len(items), IMAGES)].astype(np.int64))
    pixels = torch.from_numpy(np.array(prepared.images)).permute(0, 3, 1, 2)
    return _in_batches(normalize(pixels, preprocessing, "cpu"), chosen)


def _in_batches(images: Tensor, labels: Tensor) -> list[Batch]:
    return [(images[start : start + BATCH], labels[start : start + BATCH]) for start in range(0, len(images), BATCH)]


def shape_as_preprocessing(images: Tensor) -> Preprocessing:
    """Return a preprocessing that gives images of that shape (N, C, H, W); its normalization means nothing."""
    _, channels, height, width = images.shape
    return Preprocessing(
        min(height, width), (height, width), mean=(0.0,) * channels, std=(1.0,) * channels,
        channels=USUAL_CHANNELS.get(channels, "array"),
    )  # fmt: skip


def require_known_labels(batches: Iterable[Batch], classes: int) -> None:
    """Raise InputError for a label that is no output of the network."""
    for _, labels in batches:
        wrong = labels[(labels < 0) | (labels >= classes)]
        if len(wrong):
            raise InputError(f"data: the label {int(wrong[0])} is none of the {classes} classes of the module")
