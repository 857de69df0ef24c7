from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compress.context import Context
from compress.training.batches import batches_per_epoch, flip, normalize, random_resized_crop, train_batches
from compress.training.config import Augment, FitConfig
from runtimes import images
from runtimes.preprocessing import Preprocessing

MakeContext = Callable[..., Context]
PLAIN = Augment(hflip=False)
EVERYTHING = Augment(hflip=True, vflip=True, transpose=True, crop_scale=(0.3, 1.0))


def config(**fields: Any) -> FitConfig:
    return FitConfig(**{"batch_size": 8, "augment": PLAIN, **fields})


def batches(context: Context, settings: FitConfig, epoch: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(train_batches(context, settings, epoch))


def same(first: list[tuple[torch.Tensor, torch.Tensor]], second: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one, other) for pair in zip(first, second, strict=True) for one, other in zip(*pair, strict=True)
    )


def test_batches_hold_uint8_images_and_int64_labels(make_context: MakeContext) -> None:
    pixels, labels = batches(make_context(), config())[0]
    assert (pixels.shape, pixels.dtype) == ((8, 3, 32, 32), torch.uint8)
    assert (labels.shape, labels.dtype) == ((8,), torch.int64)


def test_each_prepared_image_comes_once_with_its_own_label(make_context: MakeContext) -> None:
    context = make_context()
    prepared = context.prepared("train")
    expected = {pixels.tobytes(): sample.label for pixels, sample in zip(prepared.images, context.train, strict=True)}
    found = {
        pixels.permute(1, 2, 0).numpy().tobytes(): int(label)
        for batch in batches(context, config(batch_size=4))
        for pixels, label in zip(*batch, strict=True)
    }
    assert len(context.train) == 36
    assert found == expected


def test_cropped_images_come_with_their_own_label(make_context: MakeContext) -> None:
    context = make_context()
    whole = config(augment=Augment(hflip=False, crop_scale=(1, 1)), batch_size=36, workers=0)
    ((_, labels),) = batches(context, whole)
    assert Counter(labels.tolist()) == Counter(sample.label for sample in context.train)


@pytest.mark.parametrize("augment", [EVERYTHING, Augment(hflip=True, vflip=True, transpose=True)])
def test_batches_do_not_depend_on_the_number_of_workers(make_context: MakeContext, augment: Augment) -> None:
    context = make_context()
    alone, together = (batches(context, config(augment=augment, workers=workers)) for workers in (0, 2))
    assert len(alone) == 4
    assert same(alone, together)


def test_batches_do_not_depend_on_torchs_random_numbers(make_context: MakeContext) -> None:
    context = make_context()
    torch.manual_seed(1)
    first = batches(context, config(augment=EVERYTHING, workers=0))
    torch.manual_seed(2)
    assert same(first, batches(context, config(augment=EVERYTHING, workers=0)))


def test_workers_take_the_same_random_numbers_from_torch(make_context: MakeContext) -> None:
    def after(workers: int) -> torch.Tensor:
        torch.manual_seed(0)
        batches(context, config(augment=EVERYTHING, workers=workers))
        return torch.rand(4)

    context = make_context()
    assert torch.equal(after(0), after(2))


@pytest.mark.parametrize("augment", [EVERYTHING, PLAIN], ids=["augmented", "plain"])
def test_epochs_and_seeds_differ(make_context: MakeContext, augment: Augment) -> None:
    settings = config(augment=augment, workers=0)
    context = make_context()
    first = batches(context, settings, epoch=1)
    assert not same(first, batches(context, settings, epoch=2))
    assert not same(first, batches(make_context(seed=1), settings, epoch=1))


def test_an_image_is_augmented_anew_in_each_epoch(make_context: MakeContext) -> None:
    context = make_context(train=make_context().train[:2])
    settings = config(augment=EVERYTHING, batch_size=2, workers=0)
    seen = {pixels.numpy().tobytes() for epoch in range(10) for pixels, _ in batches(context, settings, epoch)}
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("batch_size", "number", "size"), [(8, 4, 8), (36, 1, 36), (35, 1, 35), (100, 1, 36), (2, 18, 2)]
)
def test_a_smaller_last_batch_is_left_out(make_context: MakeContext, batch_size: int, number: int, size: int) -> None:
    context, settings = make_context(), config(batch_size=batch_size)
    made = batches(context, settings)
    assert [len(labels) for _, labels in made] == [size] * number
    assert batches_per_epoch(len(context.train), settings) == number


@pytest.mark.parametrize("which", range(8))
def test_flips_are_mirrors_and_a_transposition(which: int) -> None:
    drawn = [bool(which & 1), bool(which & 2), bool(which & 4)]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    expected = pixels
    if drawn[0]:
        expected = np.fliplr(expected)
    if drawn[1]:
        expected = np.flipud(expected)
    if drawn[2]:
        expected = np.stack([expected[..., channel].T for channel in range(3)], axis=-1)
    result = flip(pixels, EVERYTHING, Fixed([0.1 if one else 0.9 for one in drawn]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(result, expected)


class Fixed:
    """A generator that gives the numbers it was told."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers = numbers

    def random(self, count: int) -> np.ndarray[Any, Any]:
        assert count == len(self.numbers)
        return np.asarray(self.numbers)


def test_only_the_flips_asked_for_are_made() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    always = Fixed([0.0, 0.0, 0.0])
    np.testing.assert_array_equal(flip(pixels, PLAIN, always), pixels)  # type: ignore[arg-type]
    only_v = Augment(hflip=False, vflip=True)
    np.testing.assert_array_equal(flip(pixels, only_v, always), pixels[::-1])  # type: ignore[arg-type]


def test_each_of_the_eight_outcomes_is_as_likely() -> None:
    pixels, rng = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.random.default_rng(0)
    outcomes = Counter(flip(pixels, EVERYTHING, rng).tobytes() for _ in range(1600))
    assert len(outcomes) == 8
    assert all(140 <= count <= 260 for count in outcomes.values())


def test_random_crops_keep_to_the_area_and_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[tuple[int, int, int, int]] = []
    resize = Image.Image.resize

    def spy(image: Image.Image, size: tuple[int, int], resample: int, box: tuple[int, int, int, int]) -> Image.Image:
        boxes.append(box)
        return resize(image, size, resample, box)

    monkeypatch.setattr(Image.Image, "resize", spy)
    image, rng = Image.new("RGB", (300, 200)), np.random.default_rng(0)
    augment = Augment(crop_scale=(0.2, 0.6))
    for _ in range(400):
        cut = random_resized_crop(image, Preprocessing(40, 24), augment, rng)
        assert (cut.shape, cut.dtype) == ((24, 24, 3), np.uint8)
    left, top, right, bottom = np.asarray(boxes).T
    shares, ratios = (right - left) * (bottom - top) / (300 * 200), (right - left) / (bottom - top)
    assert len(boxes) == 400
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 300
    assert bottom.max() <= 200
    assert 0.197 <= shares.min() < 0.22
    assert 0.55 < shares.max() <= 0.603
    assert 0.74 <= ratios.min() < 0.77
    assert 1.3 < ratios.max() <= 1.35
    assert abs(np.mean(np.log(ratios))) < 0.04


def test_a_random_crop_shows_the_part_that_was_cut() -> None:
    column = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    cut = random_resized_crop(
        Image.fromarray(np.ascontiguousarray(column)), Preprocessing(32, 32), Augment(crop_scale=(0.2, 0.3)),
        np.random.default_rng(3),
    )  # fmt: skip
    steps = np.diff(cut[0, :, 0].astype(int))
    assert (np.diff(cut, axis=0) == 0).all(), "rows stay alike"
    assert (steps > 0).all(), "columns keep their order"
    assert abs(steps.mean() - 200 * 0.25**0.5 / 32) < 0.8


def test_an_image_too_narrow_for_any_crop_is_cut_at_its_centre() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (10, 900, 3), dtype=np.uint8))
    preprocessing = Preprocessing(40, 24)
    cut = random_resized_crop(image, preprocessing, Augment(crop_scale=(0.9, 1.0)), rng)
    np.testing.assert_array_equal(cut, images.resize_and_crop(image, preprocessing))


def test_training_normalizes_like_everything_else() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    preprocessing = Preprocessing(16, 16, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    result = normalize(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), preprocessing, "cpu")
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(result.numpy(), preprocessing.normalize(pixels), rtol=0, atol=1e-6)
