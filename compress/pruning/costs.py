"""Cost models: predicted cost of a pruned network, as latency on a target or as multiplications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from compress.networks.layers import macs_per_connection
from compress.pruning.config import PruneConfig
from compress.pruning.groups import find_groups
from compress.pruning.latency import LatencyBench, LatencyTable, measure_latency_table
from compress.pruning.plans import Unit
from compress.pruning.search import Costs, allowed_widths
from compress.pruning.shapes import Shapes, layer_names
from compress.quantization.schemes import scheme_for
from compress.training.context import Context
from export.to_onnx import to_onnx
from runtimes.artifact import Artifact
from runtimes.target import Target


@dataclass(frozen=True)
class CostModel:
    """Predicts the cost of a network from its layer shapes.

    baseline_cost, units: cost and number of units of each group of the network before the first round. bench, table:
    for latency only.
    """

    costs: Costs
    unit: Unit
    baseline_cost: float
    units: Mapping[str, int]
    bench: LatencyBench | None = None
    table: LatencyTable | None = None


def build_cost_model(network: nn.Module, context: Context, config: PruneConfig) -> CostModel:
    """Return the cost model of an unpruned network: measured on the target for `latency`, counted for `macs`."""
    example = example_input(context)
    shapes = Shapes(network, find_groups(network, example))
    target = context.target
    if target is not None:
        return _latency_model(network, shapes, target, context, config)
    macs = macs_per_connection(network, example)
    costs = Costs(lambda layer, shape: macs[layer] * shape.connections, lambda channels: 0.0)
    return CostModel(costs, "MACs", costs.total(shapes, {}), shapes.units)


def example_input(context: Context) -> Tensor:
    """Return zeros in the shape of one image, (1, C, H, W)."""
    return torch.zeros(1, *context.preprocessing.input_shape)


def _latency_model(
    network: nn.Module, shapes: Shapes, target: Target, context: Context, config: PruneConfig
) -> CostModel:
    scheme = scheme_for(target) if config.precision == "int8" else None
    artifact = _exported(network, context)
    names = layer_names(network, example_input(context), onnx.load(artifact.path))
    bench = LatencyBench(artifact, names, shapes.full, target, scheme)
    cache = context.folder.parent.parent / "widths"  # in the run folder, shared by all steps
    table = measure_latency_table(bench, shapes, allowed_widths(shapes, config), context.seed, context.console, cache)
    costs = Costs(table.layer_ms, table.rest_ms)
    return CostModel(costs, "ms", table.full_ms, shapes.units, bench, table)


def _exported(network: nn.Module, context: Context) -> Artifact:
    file = to_onnx(network, context.folder / "before.onnx", context.preprocessing.input_shape, opset=18, batch=None)
    return file.artifact(context.preprocessing, context.classes)
