"""Tests of the stage prune: budgets, limits, stored plans, rounds, and pruned networks of every family."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from consoles import RecordingConsole
from networks import Chain, make_lively
from pydantic import TypeAdapter
from torch import nn

from compress.models import mobilenet_v2
from compress.networks import checkpoint, weights
from compress.networks.layers import count_macs, layer_shapes
from compress.pruning import latency, planning
from compress.pruning.plans import PruningPlan
from compress.quantization.config import Quantize
from compress.quantization.int8 import make_int8
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES
from compress.recipe import plugins
from compress.stages.prune import Config, run
from compress.training import teaching
from compress.training.context import Context
from compress.training.loop import predict
from export.parity import compare
from export.to_onnx import to_onnx
from runtimes.clock import Timing
from runtimes.errors import InputError
from runtimes.lineage import VerifyRecord, find_record
from runtimes.measure import evaluate
from runtimes.target import Target

MakeContext = Callable[..., Context]
EXAMPLE = torch.zeros(1, 3, 32, 32)
FAMILIES = {
    "mobilenet_v2": {"arch": "mobilenet_v2"},
    "mobilenet_v3_small": {"arch": "mobilenet_v3", "size": "small"},
    "mobilenet_v3_large": {"arch": "mobilenet_v3", "size": "large"},
    "resnet18": {"arch": "resnet", "depth": 18},
    "resnet50": {"arch": "resnet", "depth": 50},
    "efficientnet_lite0": {"arch": "efficientnet_lite", "size": 0},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return make_lively(mobilenet_v2.build(mobilenet_v2.Config(width=0.5), 3))


def chain() -> nn.Module:
    torch.manual_seed(0)
    return Chain(32, 3).eval()


def outputs(model: nn.Module) -> dict[str, int]:
    return {name: shape.outputs for name, shape in layer_shapes(model).items()}


def stored_plan(context: Context, number: int) -> PruningPlan:
    return PruningPlan.from_json(json.loads((context.folder / f"plan-{number}.json").read_text()))


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    for (name, tensor), (_, other) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(tensor, other), name


@pytest.mark.parametrize("importance", ["taylor", "l2", "l1", "bn_scale", "random"])
def test_multiplications_are_reduced_to_the_requested_share(make_context: MakeContext, importance: str) -> None:
    console = RecordingConsole()
    context = make_context("1-prune", console=console)
    before = count_macs(network(), EXAMPLE)
    model = run(network(), context, Config(macs=0.5, importance=importance))  # type: ignore[arg-type]
    assert 0.45 < count_macs(model, EXAMPLE) / before <= 0.5
    assert all(count % 8 == 0 for name, count in outputs(model).items() if not name.startswith("classifier"))
    assert console.said[0].split() == ["pruned", "group", "channels", "importance", "saved"]
    assert max(map(len, console.said)) <= 80
    assert "0.500 requested" in console.said[-1]


def test_the_plan_is_stored_and_reused(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    context, config = make_context("1-prune"), Config(macs=0.6)
    first = run(network(), context, config)
    plan = stored_plan(context, 1)
    assert plan.unit == "MACs"
    assert plan.measured_share is None
    assert all(len(cut.kept) <= cut.units_before for cut in plan.cuts)
    monkeypatch.setattr(planning, "make_pruning_plan", lambda *_: pytest.fail("the stored plan is not used"))
    assert_same_weights(run(network(), context, config), first)
    assert stored_plan(context, 1) == plan


def test_layers_to_keep_are_not_pruned_and_no_group_is_pruned_below_its_limit(make_context: MakeContext) -> None:
    full = outputs(network())
    config = Config(macs=0.6, keep=("features.1[0-4].*",), most_pruned=0.5, step=1)
    pruned = outputs(run(network(), make_context("1-prune"), config))
    assert all(count == full[name] for name, count in pruned.items() if name.startswith("features.12"))
    assert all(count >= 0.5 * full[name] - 1 for name, count in pruned.items())
    with pytest.raises(InputError, match="no layer matches 'nothing'"):
        run(network(), make_context("2-prune"), Config(macs=0.6, keep=("nothing",)))


def test_layers_can_have_their_own_limits(make_context: MakeContext) -> None:
    full = outputs(network())
    config = Config(macs=0.4, limits={"features.1[0-9].conv.0.0": 0.25}, most_pruned=0.9)
    pruned = outputs(run(network(), make_context("1-prune"), config))
    shares = {name: pruned[name] / full[name] for name in full}
    assert all(shares[f"features.{block}.conv.0.0"] >= 0.75 for block in range(10, 18))
    assert min(shares.values()) < 0.5
    with pytest.raises(InputError, match="no layer matches 'nothing'"):
        run(network(), make_context("2-prune"), Config(macs=0.6, limits={"nothing": 0.5}))


def test_a_budget_that_can_not_be_met_is_an_error_with_the_least_share(make_context: MakeContext) -> None:
    with pytest.raises(InputError, match=r"can't be met: at least 0\.\d+ of the baseline's cost remains"):
        run(network(), make_context("1-prune"), Config(macs=0.05, most_pruned=0.3))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_limits_hold_over_all_rounds(rounds: int, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "train", lambda network, context, config: network)
    full = outputs(network())
    narrow = "features.1[0-4].conv.0.0"
    config = Config(
        macs=0.57, importance="l2", step=1, most_pruned=0.6, limits={narrow: 0.2}, keep=("features.1?.conv.2",),
        rounds=rounds, fine_tune={"epochs": 1, "warmup_epochs": 0},
    )  # fmt: skip
    pruned = outputs(run(network(), make_context("1-prune"), config))
    for name, count in pruned.items():
        least = 0.8 if fnmatch.fnmatchcase(name, narrow) else 0.4
        assert count >= least * full[name] - 1e-6, name
        assert count == full[name] or not fnmatch.fnmatchcase(name, "features.1?.conv.2")


@pytest.mark.usefixtures("one_thread")
def test_rounds_prune_and_train_in_turn_and_resume(make_context: MakeContext) -> None:
    fine_tune = {"epochs": 1, "batch_size": 8, "warmup_epochs": 0, "lr": 0.001, "augment": {"hflip": False}}
    context = make_context("1-prune")
    config = Config(macs=0.5, rounds=2, fine_tune=fine_tune)
    model = run(network(), context, config)
    assert [stored_plan(context, number).requested_share for number in (1, 2)] == pytest.approx([0.5**0.5, 0.5])
    assert count_macs(model, EXAMPLE) <= 0.5 * count_macs(network(), EXAMPLE)
    assert (context.folder / "round-2" / "history.json").exists()
    assert_same_weights(run(network(), context, config), model)


def test_latency_is_measured_on_the_target(
    make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SAMPLES", 6)
    monkeypatch.setattr(latency, "TIMING", Timing(warmup=2, blocks=6, runs_per_block=3))
    folder = tmp_path / "run" / "steps" / "1-prune"
    folder.mkdir(parents=True)
    context = make_context("1-prune", folder=folder, target=Target("here"))
    model = run(chain(), context, Config(latency=0.4, precision="float32"))
    plan = stored_plan(context, 1)
    assert plan.unit == "ms"
    assert plan.measured_share is not None
    assert plan.measured_share > 0
    assert count_macs(model, EXAMPLE) < count_macs(chain(), EXAMPLE)
    assert list((tmp_path / "run" / "widths").iterdir())  # beside the steps, for other steps of the run


def test_a_pruned_network_starts_a_new_recipe_with_other_classes_and_can_be_pruned_again(
    make_context: MakeContext,
) -> None:
    config = mobilenet_v2.Config(width=0.25)
    context = make_context("1-prune")
    pruned = run(make_lively(mobilenet_v2.build(config, 3)), context, Config(macs=0.6))
    checkpoint.save(context.folder, pruned, pruned=True)
    start = config.model_copy(update={"weights": str(context.folder / checkpoint.WEIGHTS_FILE)})
    images = context.prepared("val")
    expected = predict(pruned, images, "cpu")
    np.testing.assert_array_equal(predict(weights.create(start, 3, 1), images, "cpu"), expected)
    other = weights.create(start, 7, 1)
    assert predict(other, images, "cpu").shape == (len(images), 7)
    before = count_macs(other, EXAMPLE)
    again = run(other, make_context("2-prune"), Config(macs=0.6, importance="l2"))
    assert count_macs(again, EXAMPLE) <= 0.6 * before


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_pruned_network_exports_agrees_quantizes_and_loads_again(
    family: str, make_context: MakeContext, tmp_path: Path
) -> None:
    context = make_context("1-prune")
    config = TypeAdapter(plugins.config_union("models")).validate_python(FAMILIES[family])
    torch.manual_seed(0)
    unpruned = make_lively(plugins.load("models", config.arch).build(config, 3))
    pruned = run(unpruned, context, Config(macs=0.5))

    checkpoint.save(context.folder, pruned, pruned=True)
    loaded = checkpoint.load(context.folder, config, 3)
    images = context.prepared("val")
    expected = predict(pruned, images, "cpu")
    np.testing.assert_array_equal(predict(loaded, images, "cpu"), expected)
    start = config.model_copy(update={"weights": str(context.folder / checkpoint.WEIGHTS_FILE)})
    np.testing.assert_array_equal(predict(weights.create(start, 3, 1), images, "cpu"), expected)
    assert predict(weights.create(start, 7, 1), images, "cpu").shape == (len(images), 7)

    file = to_onnx(loaded, tmp_path / "pruned.onnx", 32, 18, None)
    float32 = file.artifact(context.preprocessing, context.classes)
    parity = compare(expected, evaluate(float32, Target("here"), images))
    assert parity.agreement == 1
    assert parity.max_logit_difference < 1e-3

    request = QuantizationRequest(context.prepared("train"), SCHEMES["generic"], Quantize())
    int8 = make_int8(float32, Target("here"), request, tmp_path / "int8.onnx")
    assert int8.path.stat().st_size < 0.4 * file.path.stat().st_size
    verified = find_record(int8.manifest.lineage, VerifyRecord)
    assert verified is not None
    assert verified.parity_with_float32.sqnr_db is not None
    assert verified.parity_with_float32.sqnr_db > 10
