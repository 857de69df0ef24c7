"""Tests of planning: budgets, kept units, and applied plans. A latency model without a clock replaces measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from consoles import RecordingConsole
from networks import Chain, make_lively
from torch import nn

from compress.networks.layers import LayerShape, count_macs
from compress.pruning.channels import find_groups
from compress.pruning.config import PruneConfig
from compress.pruning.costs import CostModel, build_cost_model, example_input
from compress.pruning.importance import unit_scores
from compress.pruning.latency import LatencySample
from compress.pruning.planning import MAX_MEASUREMENTS, apply_plan, make_pruning_plan
from compress.training.context import Context
from runtimes.errors import InputError

MakeContext = Callable[..., Context]
Ratio = Callable[[Mapping[str, LayerShape]], float]


def chain() -> nn.Module:
    torch.manual_seed(0)
    return Chain(32, 3).eval()


def measured_model(cost_model: CostModel, ratio: Ratio) -> CostModel:
    """Return a latency model whose table predicts MACs and whose measurements are given by `ratio`."""
    costs = SimpleNamespace(layer_ms=cost_model.costs.layer, rest_ms=cost_model.costs.rest)
    table = SimpleNamespace(refined=lambda samples: costs)
    bench = SimpleNamespace(measure_copy=lambda shapes: (LatencySample(shapes, ratio(shapes), {}), 1.0))
    return replace(cost_model, unit="ms", bench=bench, table=table)  # type: ignore[arg-type]


def test_the_plan_keeps_the_most_important_units_and_is_applied(make_context: MakeContext) -> None:
    network, context = make_lively(chain()), make_context("1-prune")
    config = PruneConfig(macs=0.5, importance="l2", step=4)
    cost_model = build_cost_model(network, context, config)
    groups = find_groups(network, example_input(context))
    scores = unit_scores("l2", network, groups, (), lambda *_: torch.zeros(()), seed=0)
    plan = make_pruning_plan(network, context, config, cost_model, 0.5)
    assert (plan.unit, plan.baseline_cost, plan.requested_share) == ("MACs", cost_model.baseline_cost, 0.5)
    assert plan.measured_share is None
    for cut in plan.cuts:
        removed = sorted(set(range(cut.units_before)) - set(cut.kept))
        values = scores[cut.group]
        if removed:
            assert min(values[list(cut.kept)]) >= max(values[removed])
            assert cut.cost_saved > 0
        assert cut.importance_removed == pytest.approx(values[removed].sum() / values.sum())
    pruned = apply_plan(network, context, plan)
    assert count_macs(pruned, example_input(context)) / cost_model.baseline_cost == pytest.approx(plan.predicted_share)
    assert plan.predicted_share <= 0.5


def test_measurements_correct_a_model_that_predicts_wrongly(make_context: MakeContext) -> None:
    """Every copy takes 1.5 times as long as predicted."""
    network, context = chain(), make_context("1-prune", console=(console := RecordingConsole()))
    cost_model = build_cost_model(network, context, PruneConfig(macs=0.5))

    def ratio(shapes: Mapping[str, LayerShape]) -> float:
        return (
            1.5 * sum(cost_model.costs.layer(name, shape) for name, shape in shapes.items()) / cost_model.baseline_cost
        )

    plan = make_pruning_plan(network, context, PruneConfig(latency=0.6, step=1), measured_model(cost_model, ratio), 0.6)
    assert plan.measured_share == pytest.approx(0.6, rel=0.02)
    assert plan.predicted_share == pytest.approx(0.6, rel=0.02)
    assert 2 <= len(console.events) <= MAX_MEASUREMENTS
    assert console.events[0] == ("measure the pruned network", 1, MAX_MEASUREMENTS)


def test_the_nearest_of_all_measured_candidates_is_chosen(make_context: MakeContext) -> None:
    network, context = chain(), make_context("1-prune")
    cost_model = build_cost_model(network, context, PruneConfig(macs=0.5))
    ratios = iter([0.8, 0.57, 0.7, 0.68, 0.9])
    noisy = measured_model(cost_model, lambda shapes: next(ratios))
    plan = make_pruning_plan(network, context, PruneConfig(latency=0.6), noisy, 0.6)
    assert plan.measured_share == 0.57
    assert not list(ratios)


def test_a_macs_budget_that_can_not_be_met_names_the_least_share(make_context: MakeContext) -> None:
    network, context, config = chain(), make_context("1-prune"), PruneConfig(macs=0.05, most_pruned=0.3)
    cost_model = build_cost_model(network, context, config)
    with pytest.raises(InputError, match=r"can't be met: at least 0\.\d+ of the baseline's cost remains with these"):
        make_pruning_plan(network, context, config, cost_model, 0.05)


@pytest.mark.parametrize(("measured", "requested"), [(0.9, 0.3), (0.4, 0.02)])
def test_a_latency_budget_that_can_not_be_met_names_the_least_measured_share(
    make_context: MakeContext, measured: float, requested: float
) -> None:
    """The cheapest widths are measured before they are called too slow, whatever is predicted."""
    network, context = chain(), make_context("1-prune")
    cost_model = measured_model(build_cost_model(network, context, PruneConfig(macs=0.5)), lambda shapes: measured)
    with pytest.raises(InputError, match=f"at least {measured:.3f} of the baseline's cost remains"):
        make_pruning_plan(network, context, PruneConfig(latency=requested), cost_model, requested)


def test_plans_are_deterministic(make_context: MakeContext) -> None:
    config, plans = PruneConfig(macs=0.6), []
    for name in ("1-prune", "2-prune"):
        network, context = chain(), make_context(name)
        plans.append(make_pruning_plan(network, context, config, build_cost_model(network, context, config), 0.6))
    assert plans[0] == plans[1]
    assert all(np.all(np.diff(cut.kept) > 0) for cut in plans[0].cuts)
