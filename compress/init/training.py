"""Choose the side of the network's input and the stages of a recipe by the size and the number of the images."""

from __future__ import annotations

import math
from typing import Any

Section = dict[str, Any]  # Any: values of a section of a recipe

LARGEST_SIDE = {"cuda": 224, "cpu": 160}  # in pixels; on a CPU, training at 224 takes twice as long
SIDE_STEP, SMALLEST_SIDE = 32, 64  # networks halve the side five times
TINY = 24  # px; smaller images are not enlarged to SMALLEST_SIDE
# By whether the starting weights are trained: optimizer steps that are enough for few images; limits of the epochs.
STEPS = {True: 400, False: 1500}
EPOCHS = {True: (5, 60), False: (20, 120)}
LEARNING_RATE = {True: 0.001, False: 0.003}
FULL_BATCH = 32  # smaller batches have too few images for the statistics of BatchNorms, which are then frozen
BATCHES = ((320, FULL_BATCH), (100, 16), (0, 8))  # from so many training images on, so large a batch
FROZEN: Section = {"lr": 0.0005, "clip_norm": 1.0}  # training with frozen BatchNorms diverges more easily
WARMUP_SHARE = 0.15
PRUNABLE_IMAGES, PRUNABLE_IMAGES_PER_CLASS = 1000, 50  # training images; a smaller network must be learned from them
PRUNED_LATENCY = 0.6
DISTILL_EPOCHS = {True: 3.0, False: 1.5}  # epochs of distillation / epochs of training
DISTILL_RATE = {True: 0.002, False: 0.003}


def side(typical_side: int, device: str, smallest_side: int) -> int:
    """Return the side of the network's input: a multiple of 32 near that of the images, 64 px or more.

    smallest_side: that the network takes.
    """
    near = SIDE_STEP * round(typical_side / SIDE_STEP)
    least = SMALLEST_SIDE if typical_side >= TINY else SIDE_STEP
    return max(smallest_side, min(max(near, least), LARGEST_SIDE[device]))


def prunes(images: int, images_of_smallest_class: int) -> bool:
    """Return whether there are enough training images to prune the network and train it again."""
    return images >= PRUNABLE_IMAGES and images_of_smallest_class >= PRUNABLE_IMAGES_PER_CLASS


def stages(
    images: int, is_trained: bool, with_pruning: bool, imbalanced: bool = False, batchnorms: tuple[str, ...] = ()
) -> list[Section]:
    """Return the stages. images: of the train split. is_trained: whether the starting weights are.

    imbalanced: whether all classes get the same weight. batchnorms: patterns of the names of the BatchNorms.
    """
    batch = next(size for least, size in BATCHES if images >= least)
    least, most = EPOCHS[is_trained]
    epochs = min(max(least, math.ceil(STEPS[is_trained] / max(1, images // batch))), most)
    fit: Section = {"batch_size": batch, "lr": LEARNING_RATE[is_trained]}
    if is_trained and batchnorms and batch < FULL_BATCH:
        fit |= {**FROZEN, "freeze": list(batchnorms)}
    if imbalanced:
        fit["balance_classes"] = True
    train = {"stage": "train", "epochs": epochs, **fit, **_end(epochs)}
    if not with_pruning:
        return [train]
    again = math.ceil(DISTILL_EPOCHS[is_trained] * epochs)
    fit["lr"] = DISTILL_RATE[is_trained]
    teacher = {"network": "baseline", "share": 0.9, "temperature": 2}
    distill = {"stage": "distill", "epochs": again, **fit, **_end(again), "teacher": teacher}
    return [train, {"stage": "prune", "latency": PRUNED_LATENCY}, distill]


def _end(epochs: int) -> Section:
    return {"warmup_epochs": max(1, round(WARMUP_SHARE * epochs)), "augment": {"hflip": True}}
