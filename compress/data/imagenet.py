"""ImageNet (ILSVRC2012): class folders by synset, the official tar files, or WebDataset shards."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from compress.images.imagenet_layout import ImagenetFiles, read_imagenet
from compress.images.samples import Data, Sample
from compress.recipe.section import Config as Section
from runtimes.errors import InputError


class Config(Section):
    """ImageNet's own validation images become the split test; the split val is held out of train.

    root: a folder, or for shards an address that fsspec understands, such as s3://bucket/imagenet. It holds train/ and
        val/ with one folder per synset (val/ may hold the images directly, with the devkit beside it), or the official
        ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, or WebDataset shards named
        train-*.tar and val-*.tar with classes.txt.
    val_per_class: number of images of each class to hold out of train.
    seed: of the random choice of those images.
    """

    name: Literal["imagenet"] = "imagenet"
    root: str
    val_per_class: Annotated[int, Field(ge=1, le=1000)] = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


def load(config: Config) -> Data:
    """Return the data set; raises InputError if the root has none of the layouts, or for misplaced files."""
    files = read_imagenet(config.root)
    if files.problems:
        count = len(files.problems) - 1
        more = f", and {count} more problem{'s' if count > 1 else ''}" if count else ""
        raise InputError(f"{files.problems[0]}{more}; see: compress data check {config.root}")
    train, val = _hold_out(files, config)
    return Data(files.classes, train, val, tuple(files.val), left_out=files.left_out.all())


def _hold_out(files: ImagenetFiles, config: Config) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return train and val: `val_per_class` images of each class, drawn by the seed, go to val."""
    indices_of_class: dict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(files.train):
        assert sample.label is not None
        indices_of_class[sample.label].append(index)
    rng = np.random.default_rng(config.seed)
    held_out: set[int] = set()
    for label in sorted(indices_of_class):
        indices = indices_of_class[label]
        if len(indices) <= config.val_per_class:
            raise InputError(
                f"class {files.classes[label]} has {len(indices)} images, too few to hold out "
                f"data.val_per_class: {config.val_per_class}"
            )
        held_out |= {indices[position] for position in rng.permutation(len(indices))[: config.val_per_class].tolist()}
    train = tuple(sample for index, sample in enumerate(files.train) if index not in held_out)
    return train, tuple(files.train[index] for index in sorted(held_out))
