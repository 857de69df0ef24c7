"""Planning: choose what each group keeps so that the network meets its budget, and apply the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compress.pruning.channels import find_channels, find_groups
from compress.pruning.config import PruneConfig
from compress.pruning.costs import CostModel, example_input, macs_model, require_measurable
from compress.pruning.importance import Batches, Scores, importance_batches, unit_scores
from compress.pruning.latency import LatencySample
from compress.pruning.plans import Cut, PruningPlan
from compress.pruning.search import Costs, allowed_widths, choose_widths
from compress.pruning.shapes import Shapes
from compress.pruning.surgery import remove_units_checked
from compress.training.context import Context
from compress.training.losses import cross_entropy
from runtimes.console import Console
from runtimes.errors import InputError

MAX_MEASUREMENTS = 5  # of candidate networks; each one refines the latency table
TOLERANCE = 0.02  # of the requested latency
ROUNDING = 1e-6  # of the requested cost: float64 sums in another order


@dataclass(frozen=True)
class _Search:
    """The input of the search for a plan.

    allowed: widths by group. share: of the baseline's cost to reach. kept: layers that can't be pruned, in words.
    """

    shapes: Shapes
    scores: Scores
    allowed: Mapping[str, list[int]]
    share: float
    kept: str

    def widths(self, costs: Costs, budget: float) -> dict[str, int]:
        return choose_widths(self.shapes, self.scores, self.allowed, costs, budget)


@dataclass(frozen=True)
class _Candidate:
    """Widths with their predicted and measured share of the baseline's cost."""

    widths: dict[str, int]
    predicted: float
    measured: float | None = None


def require_prunable(network: nn.Module, example: Tensor, config: PruneConfig) -> None:
    """Raise InputError, with the layers that prevent it, for a network without enough channels to remove.

    example: (1, C, H, W). Whether a budget of latency can be met is known after measurements only.
    """
    channels = find_channels(network, example)
    if not channels.groups:
        raise InputError(f"prune: this network has no channels to remove: {channels.reasons()}; remove the stage prune")
    shapes = Shapes(network, channels.groups)
    narrowest = {name: widths[0] for name, widths in allowed_widths(shapes, config).items()}
    if config.macs is not None:
        model = macs_model(network, shapes, example)
        least = model.costs.total(shapes, narrowest) / model.baseline_cost
        _require_budget_met(least, config.macs * (1 + ROUNDING), channels.reasons())
    else:
        require_measurable(network, shapes, narrowest, example)


def make_pruning_plan(
    network: nn.Module,
    context: Context,
    config: PruneConfig,
    cost_model: CostModel,
    share: float,
    batches: Batches | None = None,
) -> PruningPlan:
    """Return the plan that reduces a network to `share` of the baseline's cost, measured if the unit is ms.

    batches: for the importance of channels; by default of the context's train split.
    Raises InputError with the smallest share that the limits allow where that is larger than `share`.
    """
    channels = find_channels(network, example_input(context))
    shapes = Shapes(network, channels.groups)
    batches = importance_batches(context) if batches is None else batches
    scores = unit_scores(config.importance, network, channels.groups, batches, cross_entropy(0.0), context.seed)
    search = _Search(shapes, scores, allowed_widths(shapes, config, cost_model.units), share, channels.reasons())
    if cost_model.unit == "ms":
        candidate = _measured_candidate(search, cost_model, context.console)
    else:
        candidate = _predicted_candidate(search, cost_model)
    return _plan(search, cost_model, candidate)


def _predicted_candidate(search: _Search, cost_model: CostModel) -> _Candidate:
    widths = search.widths(cost_model.costs, search.share * cost_model.baseline_cost)
    predicted = cost_model.costs.total(search.shapes, widths) / cost_model.baseline_cost
    _require_budget_met(predicted, search.share * (1 + ROUNDING), search.kept)
    return _Candidate(widths, predicted)


def _measured_candidate(search: _Search, cost_model: CostModel, console: Console) -> _Candidate:
    """Return the candidate whose measured latency is nearest to the requested one.

    Each measurement refines the latency table and corrects its scale, until a candidate is within TOLERANCE.
    """
    assert cost_model.bench is not None
    assert cost_model.table is not None
    share, baseline = search.share, cost_model.baseline_cost
    samples: list[LatencySample] = []
    candidates: list[_Candidate] = []
    distances: list[float] = []
    costs, scale = cost_model.costs, 1.0
    while len(candidates) < MAX_MEASUREMENTS and all(distance > TOLERANCE for distance in distances):
        widths = search.widths(costs, share * baseline / scale)
        predicted = scale * costs.total(search.shapes, widths) / baseline
        sample, _ = cost_model.bench.measure_copy(search.shapes.layers(widths))
        samples.append(sample)
        candidates.append(_Candidate(widths, predicted, sample.ratio))
        distances.append(abs(sample.ratio / share - 1))
        table = cost_model.table.refined(samples)
        costs = Costs(table.layer_ms, table.rest_ms)
        scale = sample.ratio * baseline / costs.total(search.shapes, widths)
        console.progress("measure the pruned network", len(candidates), MAX_MEASUREMENTS)
    if any(candidate.predicted > share * (1 + ROUNDING) for candidate in candidates):  # the cheapest allowed widths
        _require_budget_met(min(sample.ratio for sample in samples), share * (1 + TOLERANCE), search.kept)
    return candidates[int(np.argmin(distances))]


def _require_budget_met(least: float, allowed: float, kept: str) -> None:
    """Raise InputError for a budget that is too small. kept: layers that can't be pruned, in words."""
    if least > allowed:
        raise InputError(
            f"prune: the budget can't be met: at least {least:.3f} of the baseline's cost remains with these limits; "
            "raise latency, macs or most_pruned, or keep fewer layers"
            + (f"; these can't be pruned: {kept}" if kept else "")
        )


def _plan(search: _Search, cost_model: CostModel, candidate: _Candidate) -> PruningPlan:
    """Return the plan in which every group keeps its most important units."""
    shapes, widths = search.shapes, candidate.widths
    cost = cost_model.costs.total(shapes, widths)
    cuts = []
    for name, group in shapes.groups.items():
        scores = search.scores[name]
        order = np.argsort(-scores, kind="stable")
        kept = np.sort(order[: widths[name]])
        cuts.append(Cut(
            group=name,
            layers=tuple(shapes.layers_of[name]),
            units_before=group.units,
            kept=tuple(int(unit) for unit in kept),
            importance_removed=1 - float(scores[kept].sum() / max(scores.sum(), 1e-30)),
            cost_saved=cost_model.costs.total(shapes, {**widths, name: group.units}) - cost,
        ))  # fmt: skip
    return PruningPlan(
        tuple(cuts), cost_model.unit, cost_model.baseline_cost, search.share, candidate.predicted, candidate.measured
    )


def apply_plan(network: nn.Module, context: Context, plan: PruningPlan) -> nn.Module:
    """Prune a network as planned, in place, and return it.

    Raises CompressError where its groups were traced wrongly, see `compress.pruning.surgery.remove_units_checked`.
    """
    example = example_input(context)
    groups = find_groups(network, example)
    units = {group.name: group.units for group in groups}
    removed = {cut.group: np.setdiff1d(np.arange(units[cut.group]), cut.kept) for cut in plan.cuts}
    generator = torch.Generator().manual_seed(context.seed)
    images = torch.randn(2, *example.shape[1:], generator=generator)
    return remove_units_checked(network, groups, removed, images)
