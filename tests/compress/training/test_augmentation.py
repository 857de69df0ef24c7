"""Augmentation of training images: sizes, random numbers, flips, mixing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compress.training.augmentation import Augmenter, flip, mixing, variants
from compress.training.config import Augment
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(32, 32, "bilinear", (0.2, 0.4, 0.6), (0.25, 0.25, 0.25))
MEAN = (51, 102, 153)
CHANGES: list[dict[str, Any]] = [
    {"rotate": 30}, {"shift": 0.3}, {"shear": 20}, {"zoom": (0.5, 0.8)}, {"policy": "randaugment"},
    {"policy": "trivialaugment"}, {"erase": 1},
]  # fmt: skip


def picture(seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def changed(fields: dict[str, Any], seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return Augmenter(Augment(hflip=False, **fields), PREPROCESSING)(picture(), np.random.default_rng(seed))


@pytest.mark.parametrize("fields", CHANGES, ids=str)
def test_transforms_keep_the_size_and_depend_only_on_the_images_generator(fields: dict[str, Any]) -> None:
    first = changed(fields)
    assert (first.shape, first.dtype) == ((32, 32, 3), np.uint8)
    torch.manual_seed(5)
    np.testing.assert_array_equal(changed(fields), first)
    assert any(not np.array_equal(changed(fields, seed), picture()) for seed in range(5))
    assert any(not np.array_equal(changed(fields, seed), first) for seed in range(1, 5))


@pytest.mark.parametrize("fields", CHANGES, ids=str)
def test_torchs_global_generator_is_not_used(fields: dict[str, Any]) -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    changed(fields)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("fields", [{"zoom": (0.5, 0.5)}, {"erase": 1}, {"shift": 0.9}], ids=str)
def test_uncovered_pixels_get_the_mean_colour(fields: dict[str, Any]) -> None:
    shares = [float(np.mean((np.abs(changed(fields, seed).astype(int) - MEAN) <= 1).all(2))) for seed in range(8)]
    assert max(shares) > 0.1


def test_an_image_is_zoomed_about_its_centre() -> None:
    grey = np.full((32, 32, 3), 255, np.uint8)
    small = Augmenter(Augment(hflip=False, zoom=(0.5, 0.5)), PREPROCESSING)(grey, np.random.default_rng(0))
    assert (small[9:23, 9:23] == 255).all()
    assert np.abs(small[:7].astype(int) - MEAN).max() <= 1


def test_the_configured_share_of_images_is_erased() -> None:
    times = sum(not np.array_equal(changed({"erase": 0.25}, seed), picture()) for seed in range(400))
    assert 70 <= times <= 130


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_every_flip_is_one_of_the_variants(hflip: bool, vflip: bool, transpose: bool) -> None:
    augment = Augment(hflip=hflip, vflip=vflip, transpose=transpose)
    known = {variant.tobytes() for variant in variants(picture(), augment)}
    assert len(known) == augment.flip_variants
    results = {flip(picture(), augment, np.random.default_rng(seed)).tobytes() for seed in range(100)}
    assert results == known


def test_flips_equal_those_of_numpy() -> None:
    image = picture()
    mirrored, upside_down, turned = (
        [*variants(image, Augment(**{"hflip": False, name: True}))][1] for name in ("hflip", "vflip", "transpose")
    )
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    np.testing.assert_array_equal(upside_down, image[::-1])
    np.testing.assert_array_equal(turned, image.transpose(1, 0, 2))


def test_only_flips_leave_few_variants() -> None:
    assert Augment(hflip=True, vflip=True, transpose=True).only_flips
    for fields in (*CHANGES, {"crop_scale": (0.5, 1)}, {"mixup": 0.2}, {"cutmix": 1}):
        assert not Augment(**fields).only_flips


@pytest.mark.parametrize("fields", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}], ids=str)
def test_mixed_labels_are_the_shares_of_the_mixed_images(fields: dict[str, Any]) -> None:
    mix = mixing(Augment(**fields), 4)
    assert mix is not None
    torch.manual_seed(0)
    labels = torch.arange(4)
    images = torch.nn.functional.one_hot(labels, 4).float()[:, :, None, None].expand(4, 4, 16, 16)
    for _ in range(20):
        mixed, shares = mix(images.contiguous(memory_format=torch.channels_last), labels)
        torch.testing.assert_close(mixed.mean((2, 3)), shares, atol=1e-6, rtol=0)


def test_without_mixup_and_cutmix_nothing_is_mixed() -> None:
    assert mixing(Augment(), 4) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_mixing_stays_on_the_gpu() -> None:
    mix = mixing(Augment(mixup=1.0, cutmix=1.0), 3)
    assert mix is not None
    images, shares = mix(torch.rand(4, 3, 8, 8, device="cuda"), torch.tensor([0, 1, 2, 0], device="cuda"))
    assert images.device.type == shares.device.type == "cuda"
    torch.testing.assert_close(shares.sum(1), torch.ones(4, device="cuda"))
