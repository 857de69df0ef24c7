"""Random changes of training images, drawn from each image's own random numbers; the heavy ones are torchvision's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from compress.training.config import Augment
from runtimes.preprocessing import Preprocessing

Pixels = npt.NDArray[np.uint8]
Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Augmenter:
    """Changes uint8 (H, W, 3) images as a recipe says, after they were cropped: turns, then a policy, then erasing."""

    def __init__(self, augment: Augment, preprocessing: Preprocessing) -> None:
        """Build the transforms. What an image is filled up with is the mean colour, which normalises to about 0."""
        self._augment = augment
        self._transforms = _transforms(augment, [255 * value for value in preprocessing.mean])

    @property
    def takes_long(self) -> bool:
        """Whether there is more to do than turning."""
        return bool(self._transforms)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Return the changed image, of the same size."""
        pixels = flip(pixels, self._augment, rng)
        if not self._transforms:
            return pixels
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's own numbers
            torch.manual_seed(int(rng.integers(2**63)))
            for transform in self._transforms:
                image = transform(image)
        changed: Pixels = image.permute(1, 2, 0).numpy()
        return changed


def mixing(augment: Augment, classes: int) -> Mix | None:
    """Return what mixes a batch of images and its labels into shares of classes; None where nothing is asked for.

    Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), each in half of the batches where both are.
    """
    from torchvision.transforms import v2

    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
        if alpha
    ]
    if not kinds:
        return None
    mix: Mix = kinds[0] if len(kinds) == 1 else v2.RandomChoice(kinds)
    return mix


def flip(pixels: Pixels, augment: Augment, rng: np.random.Generator) -> Pixels:
    """Mirror and transpose an (H, W, 3) image, each with probability 1/2 if asked for."""
    hflip, vflip, transpose = rng.random(3) < 0.5
    return _turned(pixels, augment.hflip and hflip, augment.vflip and vflip, augment.transpose and transpose)


def variants(pixels: Pixels, augment: Augment) -> Iterator[Pixels]:
    """Yield everything that `flip` may make of an (H, W, 3) image."""
    for turns in product(*([False, True] if asked else [False] for asked in _asked(augment))):
        yield _turned(pixels, *turns)


def variants_per_image(augment: Augment) -> int:
    """Return how many `variants` there are."""
    return int(2 ** sum(_asked(augment)))


def _asked(augment: Augment) -> tuple[bool, bool, bool]:
    return augment.hflip, augment.vflip, augment.transpose


def _turned(pixels: Pixels, hflip: bool, vflip: bool, transpose: bool) -> Pixels:
    """Return the image turned, by torch, which mirrors ten times as fast as NumPy."""
    if not (hflip or vflip or transpose):
        return pixels
    image = torch.from_numpy(np.array(pixels)).flip([axis for axis, asked in enumerate((vflip, hflip)) if asked])
    turned: Pixels = (image.transpose(0, 1) if transpose else image).numpy()
    return turned


def _transforms(augment: Augment, fill: list[float]) -> list[Any]:
    from torchvision.transforms import v2

    smooth = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": fill}
    made: list[Any] = []
    if augment.rotate or augment.shift or augment.shear or augment.zoom:
        made.append(v2.RandomAffine(
            augment.rotate, translate=(augment.shift, augment.shift), scale=augment.zoom or (1.0, 1.0),
            shear=augment.shear or None, **smooth,
        ))  # fmt: skip
    if augment.policy == "randaugment":
        made.append(v2.RandAugment(magnitude=augment.magnitude, **smooth))
    if augment.policy == "trivialaugment":
        made.append(v2.TrivialAugmentWide(**smooth))
    if augment.erase:
        made.append(v2.RandomErasing(augment.erase, value=[round(value) for value in fill]))
    return made
