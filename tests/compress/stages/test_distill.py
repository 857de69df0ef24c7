"""The stage distill: train with a teacher, which is the baseline by default."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compress.stages.distill import Config, run
from compress.stages.train import Config as TrainConfig
from compress.stages.train import run as train
from compress.training.config import Teacher
from compress.training.context import Context

MakeContext = Callable[..., Context]
FEW = {"epochs": 2, "batch_size": 8, "lr": 0.01, "warmup_epochs": 1, "augment": {"hflip": False}}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 3))  # fmt: skip


def test_there_is_a_teacher_by_default() -> None:
    assert Config().teacher == Teacher(network="baseline")
    assert Config().lr == 1e-3
    assert Config(teacher={"share": 0.9}).teacher.share == 0.9  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Config(teacher=None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("one_thread")
def test_it_equals_train_with_the_same_teacher(make_context: MakeContext) -> None:
    requested: list[object] = []

    def teacher(name: object) -> nn.Module:
        requested.append(name)
        return network(seed=1)

    distilled = run(network(), make_context("a", teacher=teacher), Config(**FEW))
    trained = train(network(), make_context("b", teacher=teacher), TrainConfig(**FEW, teacher=Teacher()))
    assert requested == ["baseline", "baseline"]
    torch.testing.assert_close(distilled.state_dict(), trained.state_dict(), rtol=0, atol=0)
    assert not distilled.training


@pytest.mark.usefixtures("one_thread")
def test_a_teacher_of_its_own_is_requested_by_its_section(make_context: MakeContext) -> None:
    requested: list[object] = []

    def teacher(section: object) -> nn.Module:
        requested.append(section)
        return network(seed=1)

    config = Config(**FEW, teacher={"network": {"arch": "mobilenet_v2", "weights": "some.safetensors"}})  # type: ignore[arg-type]
    run(network(), make_context(teacher=teacher), config)
    assert requested == [config.teacher.network]
