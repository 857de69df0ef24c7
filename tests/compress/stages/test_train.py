"""The stage train: cross-entropy with its own settings, with a teacher if one is named."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from compress.stages.train import Config, run
from compress.training.config import Augment, FitConfig
from compress.training.context import Context
from compress.training.loop import fit
from compress.training.losses import cross_entropy

pytestmark = pytest.mark.usefixtures("one_thread")
MakeContext = Callable[..., Context]
FEW = {"epochs": 2, "batch_size": 8, "lr": 0.01, "warmup_epochs": 1, "augment": Augment(hflip=False)}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 3))  # fmt: skip


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


def test_it_minimises_cross_entropy_with_its_own_smoothing(make_context: MakeContext) -> None:
    expected = fit(network(), make_context("a"), FitConfig(**FEW, label_smoothing=0.3), cross_entropy(0.3))
    trained = run(network(), make_context("b"), Config(**FEW, label_smoothing=0.3))
    assert_equal(trained, expected)
    assert not trained.training


def test_a_named_teacher_changes_the_result(make_context: MakeContext) -> None:
    requested: list[object] = []

    def teacher(name: object) -> nn.Module:
        requested.append(name)
        return network(seed=1)

    alone = run(network(), make_context("alone", teacher=teacher), Config(**FEW))
    taught = run(network(), make_context("taught", teacher=teacher), Config(**FEW, teacher={"share": 0.9}))
    assert requested == ["baseline"]
    assert not torch.equal(alone[4].weight, taught[4].weight)  # type: ignore[index]


def test_the_history_is_written_into_the_folder_of_the_stage(make_context: MakeContext) -> None:
    context = make_context()
    run(network(), context, Config(**FEW))
    history = json.loads((context.folder / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [1, 2]
