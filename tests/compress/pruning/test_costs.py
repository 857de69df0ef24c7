"""Tests of cost models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from consoles import RecordingConsole
from networks import Chain

from compress.networks.layers import count_macs
from compress.pruning import latency
from compress.pruning.channels import find_groups
from compress.pruning.config import PruneConfig
from compress.pruning.costs import build_cost_model, example_input
from compress.pruning.shapes import Shapes
from compress.training.context import Context
from runtimes.clock import Timing
from runtimes.target import Target

MakeContext = Callable[..., Context]


def test_multiplications_are_those_of_the_network(make_context: MakeContext) -> None:
    network, context = Chain(16, 3).eval(), make_context("1-prune")
    model = build_cost_model(network, context, PruneConfig(macs=0.5))
    assert model.unit == "MACs"
    assert model.baseline_cost == count_macs(network, example_input(context))
    assert (model.bench, model.table) == (None, None)


def test_latency_is_measured_and_its_table_is_shared_by_the_run(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SAMPLES", 3)
    monkeypatch.setattr(latency, "TIMING", Timing(warmup=1, blocks=4, runs_per_block=2))
    torch.manual_seed(0)
    network, console = Chain(16, 3).eval(), RecordingConsole()
    models = []
    for step in ("1-prune", "2-prune"):
        folder = tmp_path / "run" / "steps" / step
        folder.mkdir(parents=True)
        context = make_context(step, folder=folder, console=console, target=Target("here"))
        models.append(build_cost_model(network, context, PruneConfig(latency=0.5, precision="float32", step=4)))
    assert console.events == [("measure widths", done, 3) for done in (1, 2, 3)]  # once
    first, second = models
    assert first.unit == "ms"
    assert first.table is not None
    assert first.baseline_cost == first.table.full_ms == second.baseline_cost > 0
    shapes = Shapes(network, find_groups(network, example_input(context)))
    assert first.costs.total(shapes, {"a": 4, "b": 1, "c": 1, "d": 4}) < first.costs.total(shapes, {})
