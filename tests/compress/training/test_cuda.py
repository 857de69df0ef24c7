"""The training loop on a GPU: it learns in every precision, goes on where it stopped, and moves all that it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from consoles import RecordingConsole
from torch import nn

from compress.training.augmentation import mixing
from compress.training.batches import normalize
from compress.training.config import Augment, FitConfig, Teacher
from compress.training.context import Context
from compress.training.loop import fit, predict
from compress.training.losses import cross_entropy
from compress.training.sync_batchnorm import synchronised
from compress.training.teaching import train

MakeContext = Callable[..., Context]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def config(**fields: Any) -> FitConfig:
    return FitConfig(**{"epochs": 12, "batch_size": 12, "lr": 0.01, "augment": Augment(hflip=False), **fields})


def top1(trained: nn.Module, context: Context) -> float:
    images = context.prepared("val")
    return float(np.mean(predict(trained.to("cuda"), images, "cuda").argmax(1) == images.labels))


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_it_learns_in_every_precision(make_context: MakeContext, precision: str) -> None:
    context = make_context(device="cuda")
    trained = fit(network(), context, config(precision=precision, ema_decay=0.8, clip_norm=5), cross_entropy(0.0))
    assert top1(trained, context) >= 0.85


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_it_goes_on_where_it_stopped(make_context: MakeContext, precision: str) -> None:
    settings = config(precision=precision, accumulate=2)
    whole = fit(network(), make_context("whole", device="cuda"), settings, cross_entropy(0.0))
    parts = make_context("parts", device="cuda")
    stopping = replace(parts, console=RecordingConsole(on_say=_stop_at("epoch 6/")))
    with pytest.raises(InterruptedError):
        fit(network(), stopping, settings, cross_entropy(0.0))
    resumed = fit(network(), parts, settings, cross_entropy(0.0))
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.02)  # sums on a GPU come in any order


def _stop_at(beginning: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        if line.startswith(beginning):
            raise InterruptedError(line)

    return say


def test_a_teacher_and_mixed_crops_work_there(make_context: MakeContext) -> None:
    augment = Augment(crop_scale=(0.5, 1.0), policy="trivialaugment", erase=0.2, mixup=0.2, cutmix=1.0)
    context = make_context(device="cuda", teacher=lambda _: network())
    settings = config(augment=augment, workers=2, epochs=4, teacher=Teacher(), resize_from=16)
    assert next(train(network(), context, settings).parameters()).device.type == "cpu"


def test_normalisation_is_that_of_the_cpu(make_context: MakeContext) -> None:
    pixels = torch.randint(0, 256, (4, 3, 20, 24), dtype=torch.uint8)
    preprocessing = make_context().preprocessing
    there = normalize(pixels, preprocessing, "cuda")
    assert there.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(there.cpu(), normalize(pixels, preprocessing, "cpu"))


def test_mixing_happens_there() -> None:
    mix = mixing(Augment(mixup=1.0, cutmix=1.0), 3)
    assert mix is not None
    images, shares = mix(torch.rand(4, 3, 8, 8, device="cuda"), torch.tensor([0, 1, 2, 0], device="cuda"))
    assert images.device.type == shares.device.type == "cuda"
    torch.testing.assert_close(shares.sum(1), torch.ones(4, device="cuda"))


def test_batchnorms_are_torchs_synchronised_ones_there() -> None:
    net = network().to("cuda")
    with synchronised(net):
        assert isinstance(net[1], nn.SyncBatchNorm)  # type: ignore[index]
    assert type(net[1]) is nn.BatchNorm2d  # type: ignore[index]
