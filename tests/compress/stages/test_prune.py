"""The stage prune: the plan is kept, resumed from and told, and the result is as small as it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from consoles import RecordingConsole
from networks import Chain, Tangle, make_lively
from pydantic import ValidationError
from torch import nn

from compress.models import mobilenet_v2
from compress.networks.layers import count_macs
from compress.pruning import latency, plans
from compress.pruning.shapes import Shapes
from compress.stages.prune import Config, run
from compress.training.context import Context
from runtimes.clock import Timing
from runtimes.errors import InputError

MakeContext = Callable[..., Context]
EXAMPLE = torch.zeros(1, 3, 32, 32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return make_lively(mobilenet_v2.build(mobilenet_v2.Config(width=0.5), 3))


def chain() -> nn.Module:
    torch.manual_seed(0)
    return Chain(32, 3).eval()


def total_macs(model: nn.Module) -> int:
    return count_macs(model, EXAMPLE)


def widths(model: nn.Module) -> dict[str, int]:
    return {name: one.outputs for name, one in Shapes(model, ()).full.items()}


@pytest.mark.parametrize("importance", ["taylor", "l2", "l1", "bn_scale", "random"])
def test_multiplications_fall_to_the_share_asked_for(make_context: MakeContext, importance: str) -> None:
    console = RecordingConsole()
    context = make_context("1-prune", console=console)
    before = total_macs(network())
    model = run(network(), context, Config(macs=0.5, importance=importance))  # type: ignore[arg-type]
    assert 0.45 < total_macs(model) / before <= 0.5
    assert all(count % 8 == 0 for name, count in widths(model).items() if not name.startswith("classifier"))
    assert console.said[0].split() == ["cut", "channels", "importance", "saved"]
    assert max(map(len, console.said)) <= 80
    assert "0.500 asked" in console.said[-1]


def test_the_plan_is_stored_and_taken_again(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    context, config = make_context("1-prune"), Config(macs=0.6)
    first = run(network(), context, config)
    plan = plans.from_json(json.loads((context.folder / "plan-1.json").read_text()))
    stored = json.loads((context.folder / "plan-1.json").read_text())
    assert stored["unit"] == "MACs"
    assert stored["measured"] is None
    assert all(len(one["kept"]) <= one["before"] for one in stored["cuts"])
    monkeypatch.setattr(plans, "make_plan", lambda *_: pytest.fail("a plan is there"))
    again = run(network(), context, config)
    for (name, tensor), (_, other) in zip(first.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(tensor, other), name
    assert plans.from_json(json.loads((context.folder / "plan-1.json").read_text())) == plan


def test_layers_to_keep_stay_and_no_group_is_cut_below_its_limit(make_context: MakeContext) -> None:
    full = widths(network())
    model = run(
        network(), make_context("1-prune"), Config(macs=0.6, keep=("features.1[0-4].*",), most_pruned=0.5, step=1)
    )
    found = widths(model)
    assert all(count == full[name] for name, count in found.items() if name.startswith("features.12"))
    assert all(count >= 0.5 * full[name] - 1 for name, count in found.items())
    with pytest.raises(InputError, match="no layer is called nothing"):
        run(network(), make_context("2-prune"), Config(macs=0.6, keep=("nothing",)))


def test_a_layer_may_have_a_limit_of_its_own(make_context: MakeContext) -> None:
    full = widths(network())
    config = Config(macs=0.4, limits={"features.1[0-9].conv.0.0": 0.25}, most_pruned=0.9)
    found = widths(run(network(), make_context("1-prune"), config))
    shares = {name: found[name] / full[name] for name in full}
    assert all(shares[f"features.{block}.conv.0.0"] >= 0.75 for block in range(10, 18))
    assert min(shares.values()) < 0.5
    with pytest.raises(InputError, match="no layer is called nothing"):
        run(network(), make_context("2-prune"), Config(macs=0.6, limits={"nothing": 0.5}))


def test_a_budget_that_can_not_be_met_is_told_with_the_least_that_can(make_context: MakeContext) -> None:
    with pytest.raises(InputError, match=r"can't be met; the least that the limits allow is 0\.\d+ of the network"):
        run(network(), make_context("1-prune"), Config(macs=0.05, most_pruned=0.3))


@pytest.mark.usefixtures("one_thread")
def test_rounds_cut_and_train_in_turn_and_resume(make_context: MakeContext) -> None:
    fine_tune = {"epochs": 1, "batch_size": 8, "warmup_epochs": 0, "lr": 0.001, "augment": {"hflip": False}}
    context = make_context("1-prune")
    config = Config(macs=0.5, rounds=2, fine_tune=fine_tune)
    model = run(network(), context, config)
    asked = [json.loads((context.folder / f"plan-{number}.json").read_text())["asked"] for number in (1, 2)]
    assert asked == pytest.approx([0.5**0.5, 0.5])
    assert total_macs(model) <= 0.5 * total_macs(network())
    assert (context.folder / "round-2" / "history.json").exists()
    again = run(network(), context, config)
    for (name, tensor), (_, other) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(tensor, other), name


def test_latency_is_measured_on_the_target(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SAMPLES", 6)
    monkeypatch.setattr(latency, "TIMING", Timing(warmup=2, blocks=6, runs_per_block=3))
    folder = tmp_path / "run" / "steps" / "1-prune"
    folder.mkdir(parents=True)
    context = make_context("1-prune", folder=folder)
    model = run(chain(), context, Config(latency=0.6, precision="float32"))
    stored = json.loads((folder / "plan-1.json").read_text())
    assert stored["unit"] == "ms"
    assert 0.4 < stored["measured"] < 0.9
    assert total_macs(model) < 0.8 * total_macs(chain())
    assert list((tmp_path / "run" / "widths").iterdir())  # beside the steps, for other runs of the recipe
    with pytest.raises(InputError, match="target: there is no target 'board'; choose from here"):
        run(chain(), make_context("2-prune"), Config(latency=0.5, target="board"))


@pytest.mark.parametrize(("measured", "asked"), [(0.9, 0.3), (0.4, 0.02)])
def test_milliseconds_that_can_not_be_met_are_told_with_the_least_that_the_clock_says(
    make_context: MakeContext, measured: float, asked: float
) -> None:
    """Whatever is predicted; the cheapest widths are measured before anybody is told that they are too slow."""
    model, context = chain(), make_context("1-prune")
    price = plans.pricing(model, context, Config(macs=0.5))
    table = SimpleNamespace(
        refined=lambda near: SimpleNamespace(layer_ms=price.costs.layer, rest_ms=price.costs.rest)
    )  # fmt: skip
    bench = SimpleNamespace(sample=lambda full, shapes: (latency.Sample(shapes, measured, {}), 1.0))
    priced = replace(price, bench=bench, table=table)
    with pytest.raises(InputError, match=f"the least that the limits allow is {measured:.3f} of the network"):
        plans.make_plan(model, context, Config(latency=asked), priced, asked)


def test_what_is_kept_is_what_is_worth_most() -> None:
    model = make_lively(Tangle())
    from compress.pruning.groups import find_groups

    groups = find_groups(model, torch.zeros(1, 3, 8, 8))
    shapes = Shapes(model, groups)
    worth = {one.name: np.random.default_rng(0).uniform(0, 1, one.units) for one in groups}
    price = plans.Price(plans.Costs(lambda layer, width: width.connections, lambda channels: 0.0), "MACs", 1.0, {})
    plan = plans._plan(shapes, worth, {one.name: max(1, one.units // 2) for one in groups}, price, 0.5, 0.5, None)
    for one in plan.cuts:
        gone = set(range(one.before)) - set(one.kept)
        assert min(worth[one.group][list(one.kept)]) >= max(worth[one.group][list(gone)])
        assert one.lost == pytest.approx(worth[one.group][list(gone)].sum() / worth[one.group].sum())


@pytest.mark.parametrize(("wrong", "message"), [
    ({}, "either latency or macs"), ({"latency": 0.5, "macs": 0.5}, "either latency or macs"),
    ({"macs": 1.0}, "less than 1"),
    ({"macs": 0.5, "rounds": 2}, "need the section fine_tune"), ({"macs": 0.5, "importance": "l3"}, "taylor"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(**wrong)
