"""Training batches: content, order, random numbers, workers, ranks, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import encoded_image

from compress.images import samples
from compress.images.archives import Slice
from compress.images.samples import Sample
from compress.training.augmentation import flip
from compress.training.batches import TrainingBatches, normalize
from compress.training.config import Augment, FitConfig
from compress.training.context import Context
from runtimes import images
from runtimes.console import SilentConsole
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

MakeContext = Callable[..., Context]
PLAIN = Augment(hflip=False)
EVERYTHING = Augment(hflip=True, vflip=True, transpose=True, crop_scale=(0.3, 1.0))


def config(**fields: Any) -> FitConfig:
    return FitConfig(**{"batch_size": 8, "augment": PLAIN, **fields})


def batches(context: Context, settings: FitConfig, epoch: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with TrainingBatches(context, settings) as loader:
        return list(loader.epoch(epoch))


def same(first: list[tuple[torch.Tensor, torch.Tensor]], second: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(tensor, other)
        for pair in zip(first, second, strict=True)
        for tensor, other in zip(*pair, strict=True)
    )


def test_batches_hold_uint8_images_and_int64_labels(make_context: MakeContext) -> None:
    pixels, labels = batches(make_context(), config())[0]
    assert (pixels.shape, pixels.dtype) == ((8, 3, 32, 32), torch.uint8)
    assert (labels.shape, labels.dtype) == ((8,), torch.int64)


def test_each_prepared_image_appears_once_with_its_label(make_context: MakeContext) -> None:
    context = make_context()
    prepared = context.prepared("train")
    expected = {pixels.tobytes(): sample.label for pixels, sample in zip(prepared.images, context.train, strict=True)}
    labels_of = {
        pixels.permute(1, 2, 0).numpy().tobytes(): int(label)
        for batch in batches(context, config(batch_size=4))
        for pixels, label in zip(*batch, strict=True)
    }
    assert len(context.train) == 36
    assert labels_of == expected


def test_cropped_images_have_their_labels(make_context: MakeContext) -> None:
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


def test_batches_do_not_depend_on_torchs_global_generator(make_context: MakeContext) -> None:
    context = make_context()
    torch.manual_seed(1)
    first = batches(context, config(augment=EVERYTHING, workers=0))
    torch.manual_seed(2)
    assert same(first, batches(context, config(augment=EVERYTHING, workers=0)))


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_global_generator_is_not_used(make_context: MakeContext, workers: int) -> None:
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    batches(make_context(), config(augment=EVERYTHING, workers=workers))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("augment", [EVERYTHING, Augment(vflip=True)], ids=["decoded", "prepared"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_at_any_step_and_come_in_any_order(
    make_context: MakeContext, augment: Augment, workers: int
) -> None:
    context, settings = make_context(), config(augment=augment, workers=workers)
    whole = {epoch: batches(context, settings, epoch) for epoch in (1, 2)}
    with TrainingBatches(context, settings) as loader:
        next(loader.epoch(2))  # an interrupted epoch
        for epoch, first in ((2, 1), (1, 3), (2, 0), (1, 4)):
            assert same(list(loader.epoch(epoch, first)), whole[epoch][first:])


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_together_see_the_batches_of_one_process(make_context: MakeContext, ranks: int) -> None:
    context, settings = make_context(), config(augment=EVERYTHING, workers=0)
    parts = [list(TrainingBatches(context, settings, rank, ranks).epoch(1)) for rank in range(ranks)]
    for step, (pixels, labels) in enumerate(batches(context, settings)):
        for rank in range(ranks):
            assert torch.equal(parts[rank][step][0], pixels[rank::ranks])
            assert torch.equal(parts[rank][step][1], labels[rank::ranks])


def test_a_rank_without_an_image_raises(make_context: MakeContext) -> None:
    with pytest.raises(InputError, match="a batch of 8 images can't be shared by 9 processes"):
        TrainingBatches(make_context(), config(), 0, 9)


@pytest.mark.parametrize("augment", [EVERYTHING, PLAIN], ids=["decoded", "prepared"])
def test_images_can_have_another_size(make_context: MakeContext, augment: Augment) -> None:
    with TrainingBatches(make_context(), config(augment=augment, workers=0)) as loader:
        pixels, _ = next(loader.epoch(1, sides=(24, 24)))
        assert pixels.shape == (8, 3, 24, 24)
        large, _ = next(loader.epoch(1))
        assert large.shape == (8, 3, 32, 32)
    shrunk = torch.nn.functional.interpolate(large.float(), (24, 24), mode="bilinear", antialias=True)
    if augment is PLAIN:
        assert (pixels.float() - shrunk).abs().max() <= 1


@pytest.mark.parametrize("augment", [EVERYTHING, PLAIN], ids=["augmented", "plain"])
def test_epochs_and_seeds_differ(make_context: MakeContext, augment: Augment) -> None:
    settings = config(augment=augment, workers=0)
    context = make_context()
    first = batches(context, settings, epoch=1)
    assert not same(first, batches(context, settings, epoch=2))
    assert not same(first, batches(make_context(seed=1), settings, epoch=1))


def test_an_image_is_augmented_differently_in_each_epoch(make_context: MakeContext) -> None:
    context = make_context(train=make_context().train[:2])
    settings = config(augment=EVERYTHING, batch_size=2, workers=0)
    variants = {pixels.numpy().tobytes() for epoch in range(10) for pixels, _ in batches(context, settings, epoch)}
    assert len(variants) == 10


@pytest.mark.parametrize(
    ("batch_size", "number", "size"), [(8, 4, 8), (36, 1, 36), (35, 1, 35), (100, 1, 36), (2, 18, 2)]
)
def test_an_incomplete_last_batch_is_dropped(
    make_context: MakeContext, batch_size: int, number: int, size: int
) -> None:
    context, settings = make_context(), config(batch_size=batch_size)
    whole = batches(context, settings)
    assert [len(labels) for _, labels in whole] == [size] * number
    assert TrainingBatches(context, settings).steps == number


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
    result = flip(pixels, EVERYTHING, Fixed([0.1 if flipped else 0.9 for flipped in drawn]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(result, expected)


class Fixed:
    """Generator that returns fixed numbers."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers = numbers

    def random(self, count: int) -> np.ndarray[Any, Any]:
        assert count == len(self.numbers)
        return np.asarray(self.numbers)


def test_disabled_flips_do_not_happen() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    always = Fixed([0.0, 0.0, 0.0])
    np.testing.assert_array_equal(flip(pixels, PLAIN, always), pixels)  # type: ignore[arg-type]
    only_v = Augment(hflip=False, vflip=True)
    np.testing.assert_array_equal(flip(pixels, only_v, always), pixels[::-1])  # type: ignore[arg-type]


def test_the_eight_outcomes_are_equally_likely() -> None:
    pixels, rng = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.random.default_rng(0)
    outcomes = Counter(flip(pixels, EVERYTHING, rng).tobytes() for _ in range(1600))
    assert len(outcomes) == 8
    assert all(140 <= count <= 260 for count in outcomes.values())


def test_training_normalizes_like_the_preprocessing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    preprocessing = Preprocessing(16, 16, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    result = normalize(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), preprocessing, "cpu")
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(result.numpy(), preprocessing.normalize(pixels), rtol=0, atol=1e-6)


def test_repeated_images_are_fewer_and_augmented_differently(make_context: MakeContext) -> None:
    context = make_context()
    settings = config(batch_size=12, repeats=3, augment=Augment(crop_scale=(0.3, 1.0)), workers=0)
    ((first, labels), *others) = batches(context, settings)
    assert len(others) == 2
    for start in range(0, 12, 3):
        assert len(set(labels[start : start + 3].tolist())) == 1
        assert not torch.equal(first[start], first[start + 1])
    plain = config(batch_size=12, repeats=3)
    distinct = {image.numpy().tobytes() for pixels, _ in batches(context, plain) for image in pixels}
    assert len(distinct) == 12


def test_augmentation_is_the_same_in_workers(make_context: MakeContext) -> None:
    context = make_context()
    augment = Augment(policy="randaugment", erase=0.5, rotate=10)
    alone, together = (batches(context, config(augment=augment, workers=workers)) for workers in (0, 2))
    assert same(alone, together)


def test_remote_images_are_downloaded_in_parallel(make_context: MakeContext, tmp_path: Path) -> None:
    context = make_context()
    whole = b"".join(images.content(sample.source) for sample in context.train)
    (tmp_path / "all.tar").write_bytes(whole)
    offset, samples = 0, []
    for sample in context.train:
        size = len(images.content(sample.source))
        samples.append(replace(sample, source=Slice(f"local://{tmp_path}/all.tar", offset, size)))
        offset += size
    settings = config(augment=EVERYTHING, workers=1)
    assert same(batches(replace(context, train=tuple(samples)), settings), batches(context, settings))


@pytest.mark.slow  # over half a minute
def test_memory_is_constant_over_50_000_images_and_20_resumes(tmp_path: Path) -> None:
    worker = Path(__file__).parents[2] / "support/memory_worker.py"
    done = subprocess.run([sys.executable, worker, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout)
    assert len(used) == 5
    assert max(used[1:]) - used[0] < 0.03 * used[0], used


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_normalisation_on_a_gpu_equals_that_on_the_cpu(small: Preprocessing) -> None:
    pixels = torch.randint(0, 256, (4, 3, 20, 24), dtype=torch.uint8)
    images = normalize(pixels, small, "cuda")
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images.cpu(), normalize(pixels, small, "cpu"))


@st.composite
def preprocessings(draw: st.DrawFn) -> Preprocessing:
    """Draw sizes, channels and values; the crop may be long."""
    height, width = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    channels: Any = draw(st.sampled_from(["rgb", "grey", "rgba"]))
    count = {"rgb": 3, "grey": 1, "rgba": 4}[channels]
    mean, std = (tuple(draw(st.lists(st.floats(low, 1), min_size=count, max_size=count))) for low in (0.0, 0.01))
    interpolation: Any = draw(st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]))
    resize = draw(st.integers(min(height, width), 50))
    return Preprocessing(resize, (height, width), interpolation, mean, std, channels)


@given(
    preprocessing=preprocessings(),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    kind=st.sampled_from([("L", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("L", "JPEG"), ("RGB", "JPEG"),
                          ("CMYK", "JPEG"), ("I;16", "PNG")]),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_training_evaluation_and_board_give_the_network_the_same_numbers(
    tmp_path_factory: pytest.TempPathFactory, preprocessing: Preprocessing, size: tuple[int, int],
    kind: tuple[str, str], seed: int,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("same")
    content = encoded_image(size, *kind, seed=seed)
    (folder / "image").write_bytes(content)
    sources = (Sample("a", content, 0), Sample("b", folder / "image", 1))
    prepared = samples.write_evalset(folder / "set", sources, ("x", "y"), preprocessing, SilentConsole())
    context = Context(
        "0-train", ("x", "y"), sources, preprocessing, 0, "cpu", folder, None, lambda network: torch.nn.Flatten(),
        prepared=lambda split: prepared, subset=lambda split, count: prepared, track=lambda epoch, values: None,
        console=SilentConsole(),
    )  # fmt: skip
    on_board = preprocessing.normalize(images.read(folder / "image", preprocessing)[None])
    assert on_board.shape == (1, *preprocessing.input_shape)
    for batch in prepared.batches(1):
        np.testing.assert_array_equal(batch, on_board)
    ((pixels, _),) = batches(context, config(batch_size=2))
    trained_on = normalize(pixels, preprocessing, "cpu").numpy()
    np.testing.assert_allclose(trained_on, np.concatenate([on_board, on_board]), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(pixels[0].permute(1, 2, 0).numpy(), images.read(content, preprocessing))


@pytest.mark.parametrize("channels", ["rgb", "grey", "rgba"])
@pytest.mark.parametrize("kind", [("L", "PNG"), ("RGBA", "PNG"), ("RGB", "JPEG")])
def test_random_crops_and_every_augmentation_keep_the_shape_of_long_images(
    make_context: MakeContext, channels: Any, kind: tuple[str, str]
) -> None:
    count = {"rgb": 3, "grey": 1, "rgba": 4}[channels]
    preprocessing = Preprocessing(20, (16, 48), "bilinear", (0.5,) * count, (0.5,) * count, channels)
    content = encoded_image((120, 50), *kind, seed=1)
    augment = Augment(
        vflip=True, crop_scale=(0.3, 1), rotate=10, shift=0.1, shear=5, zoom=(0.9, 1.1), erase=0.5,
        policy=None if channels == "rgba" else "randaugment",
    )  # fmt: skip
    context = make_context(train=tuple(Sample(str(n), content, n % 3) for n in range(8)), preprocessing=preprocessing)
    with TrainingBatches(context, config(augment=augment, workers=0)) as loader:
        for sides in ((16, 48), (8, 24)):
            ((pixels, _),) = loader.epoch(0, sides=sides)
            assert pixels.shape == (8, count, *sides)
            assert len(np.unique(pixels.numpy(), axis=0)) > 1
