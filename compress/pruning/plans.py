"""A plan: what each group keeps, why, and what that saves; made first, shown, stored, and cut then."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from compress.networks.layers import LayerShape, macs_per_connection
from compress.pruning import tables as pruning_tables
from compress.pruning.config import PruneConfig
from compress.pruning.groups import Group, find_groups
from compress.pruning.importance import Scores, scores
from compress.pruning.latency import Bench, LatencyTable, Sample, measured_table
from compress.pruning.search import Costs, choose_widths
from compress.pruning.shapes import Shapes, layer_names
from compress.pruning.surgery import checked_cut
from compress.quantization.schemes import scheme_for
from compress.training.batches import normalize
from compress.training.context import Context
from compress.training.losses import cross_entropy
from export.to_onnx import to_onnx
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.files import write_json

IMAGES, BATCH = 512, 32  # that importance is taken on
MOST_MEASURED = 5  # plans, each measured, from which the table of costs learns
TOLERANCE = 0.02  # of the share asked for


@dataclass(frozen=True)
class Cut:
    """What a group keeps. kept: the units that stay, ascending; lost: share of the group's importance that goes."""

    group: str
    layers: tuple[str, ...]
    before: int
    kept: tuple[int, ...]
    lost: float
    saved: float


@dataclass(frozen=True)
class Plan:
    """All cuts. unit: of costs, ms or MACs. predicted, measured: share of the whole network's cost, None unmeasured."""

    cuts: tuple[Cut, ...]
    unit: str
    cost_before: float
    asked: float
    predicted: float
    measured: float | None


@dataclass(frozen=True)
class Price:
    """How costs are told. whole: of the network before the first cut. bench, table: None where nothing is measured."""

    costs: Costs
    unit: str
    whole: float
    full: Mapping[str, LayerShape]
    bench: Bench | None = None
    table: LatencyTable | None = None


def pricing(model: nn.Module, context: Context, config: PruneConfig) -> Price:
    """Measure what widths cost on the target, or count multiplications."""
    example = _example(context)
    shapes = Shapes(model, find_groups(model, example))
    target = config.measures_on(context.targets)
    if target is None:
        positions = macs_per_connection(model, example)
        costs = Costs(lambda layer, width: positions[layer] * width.connections, lambda channels: 0.0)
        return Price(costs, "MACs", costs.total(shapes, {}), shapes.all({}))
    scheme = scheme_for(target) if config.precision == "int8" else None
    artifact = _exported(model, context)
    bench = Bench(artifact, layer_names(model, example, onnx.load(artifact.path)), target, scheme)
    cache = context.folder.parent.parent / "widths"
    table = measured_table(bench, shapes, _choices(shapes, config), context.seed, context.console.progress, cache)
    return Price(Costs(table.layer_ms, table.rest_ms), "ms", table.full_ms, shapes.all({}), bench, table)


def make_plan(model: nn.Module, context: Context, config: PruneConfig, price: Price, asked: float) -> Plan:
    """Return the plan that brings a network to a share of the whole network's cost, measured where that is possible.

    Raises InputError with the least share that can be reached where it can't.
    """
    groups = find_groups(model, _example(context))
    shapes = Shapes(model, groups)
    worth = scores(config.importance, model, groups, batches(context), cross_entropy(0.0), context.seed)
    choices = _choices(shapes, config)
    if price.bench is None or price.table is None:
        widths = choose_widths(shapes, worth, choices, price.costs, asked * price.whole)
        predicted = price.costs.total(shapes, widths) / price.whole
        _require_reached(predicted, asked * (1 + 1e-6))
        return _plan(shapes, worth, widths, price, asked, predicted, None)
    near: list[Sample] = []
    tried: list[tuple[float, float, float, dict[str, int]]] = []  # distance from what was asked; predicted, measured
    costs, scale = price.costs, 1.0
    while len(tried) < MOST_MEASURED and all(distance > TOLERANCE for distance, *_ in tried):
        widths = choose_widths(shapes, worth, choices, costs, asked * price.whole / scale)
        predicted = scale * costs.total(shapes, widths) / price.whole
        sample, _ = price.bench.sample(price.full, shapes.all(widths))
        near.append(sample)
        tried.append((abs(sample.ratio / asked - 1), predicted, sample.ratio, widths))
        table = price.table.refined(near)
        costs = Costs(table.layer_ms, table.rest_ms)
        scale = sample.ratio * price.whole / costs.total(shapes, widths)
        context.console.progress("measure the pruned network", len(tried), MOST_MEASURED)
    if any(predicted > asked * (1 + 1e-6) for _, predicted, *_ in tried):  # by the cheapest widths that there are
        _require_reached(min(measured for *_, measured, _ in tried), asked * (1 + TOLERANCE))
    _, predicted, measured, widths = min(tried, key=lambda one: one[0])
    return _plan(shapes, worth, widths, price, asked, predicted, measured)


def _require_reached(least: float, allowed: float) -> None:
    if least > allowed:
        raise InputError(
            f"prune: the budget can't be met; the least that the limits allow is {least:.3f} of the network"
        )


def apply(model: nn.Module, context: Context, plan: Plan) -> nn.Module:
    """Cut a network as planned, in place, and return it; raises CompressError where its groups were traced wrongly."""
    groups = find_groups(model, _example(context))
    units = {group.name: group.units for group in groups}
    removed = {one.group: np.setdiff1d(np.arange(units[one.group]), one.kept) for one in plan.cuts}
    seeded = torch.Generator().manual_seed(context.seed)
    return checked_cut(model, groups, removed, torch.randn(2, *_example(context).shape[1:], generator=seeded))


def save(path: Path, plan: Plan) -> None:
    """Write a plan as JSON."""
    write_json(path, asdict(plan))


def from_json(content: dict[str, Any]) -> Plan:
    """Return the plan that `save` wrote."""
    cuts = tuple(Cut(**{**one, "layers": tuple(one["layers"]), "kept": tuple(one["kept"])}) for one in content["cuts"])
    return Plan(**{**content, "cuts": cuts})


def lines(plan: Plan) -> Iterator[str]:
    """Yield the plan as text of at most 80 columns."""
    content = asdict(plan)
    for name, *rest in pruning_tables.of_plan(content):
        yield f"{name:<36}" + "".join(f"{cell:>14}" for cell in rest)
    yield pruning_tables.outcome(content)


def batches(context: Context) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the normalised images and labels that importance is taken on, spread over the train split."""
    images = context.subset("train", IMAGES)
    assert images.labels is not None
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(images.images[start : start + BATCH]).permute(0, 3, 1, 2)
        yield normalize(pixels, context.preprocessing, "cpu"), torch.from_numpy(images.labels[start : start + BATCH])


def _plan(
    shapes: Shapes,
    worth: Scores,
    widths: Mapping[str, int],
    price: Price,
    asked: float,
    predicted: float,
    measured: float | None,
) -> Plan:
    cost = price.costs.total(shapes, widths)
    cuts = []
    for name, group in shapes.groups.items():
        order = np.argsort(-worth[name], kind="stable")
        kept = np.sort(order[: widths[name]])
        back = {**widths, name: group.units}
        cuts.append(Cut(
            group=name,
            layers=tuple(shapes.readers[name]),
            before=group.units,
            kept=tuple(int(unit) for unit in kept),
            lost=1 - float(worth[name][kept].sum() / max(worth[name].sum(), 1e-30)),
            saved=price.costs.total(shapes, back) - cost,
        ))  # fmt: skip
    return Plan(tuple(cuts), price.unit, price.whole, asked, predicted, measured)


def _choices(shapes: Shapes, config: PruneConfig) -> dict[str, list[int]]:
    """Return how many units each group may keep: multiples of the step, down to its limit, and all."""
    for pattern in (*config.keep, *config.limits):
        if not any(_matches(pattern, layer) for layer in shapes.full):
            raise InputError(f"prune: no layer is called {pattern}; there are {', '.join([*shapes.full][:5])}, …")
    return {name: _group_choices(group, shapes.readers[name], config) for name, group in shapes.groups.items()}


def _group_choices(group: Group, layers: list[str], config: PruneConfig) -> list[int]:
    if any(_matches(pattern, layer) for pattern in config.keep for layer in layers):
        return [group.units]
    limits = [most for pattern, most in config.limits.items() if any(_matches(pattern, layer) for layer in layers)]
    least = max(1, round(group.units * (1 - min(limits, default=config.most_pruned))))
    first = -(-least // config.step) * config.step
    return [*range(first, group.units, config.step), group.units]


def _matches(pattern: str, layer: str) -> bool:
    return fnmatch.fnmatchcase(layer, pattern)


def _exported(model: nn.Module, context: Context) -> Artifact:
    path = context.folder / "before.onnx"
    file = to_onnx(model, path, context.preprocessing.crop, opset=18, batch=None)
    return file.artifact(context.preprocessing, context.classes)


def _example(context: Context) -> Tensor:
    side = context.preprocessing.crop
    return torch.zeros(1, 3, side, side)
