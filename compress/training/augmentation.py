"""Random augmentation of training images, with a generator per image; torchvision does the expensive parts."""

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
    """Augments cropped uint8 (H, W, C) images: flips and transposition, geometry, a policy, erasing, in this order."""

    def __init__(self, augment: Augment, preprocessing: Preprocessing) -> None:
        """Build the transforms. Uncovered pixels get the mean colour, which normalises to about 0."""
        self._augment = augment
        self._transforms = _transforms(augment, [255 * value for value in preprocessing.mean])

    @property
    def is_slow(self) -> bool:
        """Return whether there are transforms besides flips and transposition."""
        return bool(self._transforms)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Return the augmented image, of the same size."""
        pixels = flip(pixels, self._augment, rng)
        if not self._transforms:
            return pixels
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):  # torchvision uses torch's global generator
            torch.manual_seed(int(rng.integers(2**63)))
            for transform in self._transforms:
                image = transform(image)
        augmented: Pixels = image.permute(1, 2, 0).numpy()
        return augmented


def mixing(augment: Augment, classes: int) -> Mix | None:
    """Return a function that mixes the images of a batch and its labels into class probabilities; None without mixing.

    Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), each for half of the batches if both are set.
    """
    from torchvision.transforms import v2

    transforms = [
        transform(alpha=alpha, num_classes=classes)
        for transform, alpha in ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
        if alpha
    ]
    if not transforms:
        return None
    mix: Mix = transforms[0] if len(transforms) == 1 else v2.RandomChoice(transforms)
    return mix


def flip(pixels: Pixels, augment: Augment, rng: np.random.Generator) -> Pixels:
    """Mirror and transpose an (H, W, C) image, each with probability 1/2 if enabled."""
    hflip, vflip, transpose = rng.random(3) < 0.5
    return _flipped(pixels, augment.hflip and hflip, augment.vflip and vflip, augment.transpose and transpose)


def variants(pixels: Pixels, augment: Augment) -> Iterator[Pixels]:
    """Yield every possible result of `flip` for an (H, W, C) image."""
    enabled_flips = (augment.hflip, augment.vflip, augment.transpose)
    for flips in product(*([False, True] if enabled else [False] for enabled in enabled_flips)):
        yield _flipped(pixels, *flips)


def _flipped(pixels: Pixels, hflip: bool, vflip: bool, transpose: bool) -> Pixels:
    """Return the flipped image; torch flips ten times as fast as NumPy."""
    if not (hflip or vflip or transpose):
        return pixels
    image = torch.from_numpy(np.array(pixels)).flip([axis for axis, enabled in enumerate((vflip, hflip)) if enabled])
    flipped: Pixels = (image.transpose(0, 1) if transpose else image).numpy()
    return flipped


def _transforms(augment: Augment, fill: list[float]) -> list[Any]:
    from torchvision.transforms import v2

    options = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": fill}
    transforms: list[Any] = []
    if augment.rotate or augment.shift or augment.shear or augment.zoom:
        transforms.append(v2.RandomAffine(
            augment.rotate, translate=(augment.shift, augment.shift), scale=augment.zoom or (1.0, 1.0),
            shear=augment.shear or None, **options,
        ))  # fmt: skip
    if augment.policy == "randaugment":
        transforms.append(v2.RandAugment(magnitude=augment.magnitude, **options))
    if augment.policy == "trivialaugment":
        transforms.append(v2.TrivialAugmentWide(**options))
    if augment.erase:
        transforms.append(v2.RandomErasing(augment.erase, value=[round(value) for value in fill]))
    return transforms
