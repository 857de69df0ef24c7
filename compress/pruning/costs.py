"""Cost models: predicted cost of a pruned network, as latency on a target or as multiplications."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import shape_inference
from torch import Tensor, nn

from compress.networks.fusion import fused_checked, is_fusible, trained_layers
from compress.networks.layers import layer_shapes, macs_per_connection
from compress.pruning.channels import find_groups
from compress.pruning.config import PruneConfig
from compress.pruning.latency import LatencyBench, LatencyTable, measure_latency_table
from compress.pruning.plans import Unit
from compress.pruning.search import Costs, allowed_widths
from compress.pruning.shapes import Shapes, Widths, layer_names, resize_graph
from compress.quantization.schemes import scheme_for
from compress.training.context import Context
from export.to_onnx import to_onnx
from runtimes.artifact import Artifact
from runtimes.errors import InputError
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


def build_cost_model(network: nn.Module, context: Context, config: PruneConfig, cache: Path | None = None) -> CostModel:
    """Return the cost model of an unpruned network: measured on the target for `latency`, counted for `macs`.

    Both are those of the exported form, whose branches are fused. cache: folder of latency
    tables; by default in the run folder, shared by all steps.
    """
    example = example_input(context)
    shapes = Shapes(network, find_groups(network, example))
    if context.target is not None:
        bench = _bench(Exported.of(network, example), shapes, context.target, context, config)
        return _latency_model(bench, shapes, context, config, cache or context.folder.parent.parent / "widths")
    return macs_model(network, shapes, example)


def macs_model(network: nn.Module, shapes: Shapes, example: Tensor) -> CostModel:
    """Return the cost model that counts multiplications."""
    exported = Exported.of(network, example)
    counted = macs_per_connection(exported.network, example)
    macs = {exported.layers[layer]: count for layer, count in counted.items()}
    costs = Costs(lambda layer, shape: macs.get(layer, 0) * shape.connections, lambda channels: 0.0)
    return CostModel(costs, "MACs", costs.total(shapes, {}), shapes.units)


@dataclass(frozen=True)
class Exported:
    """The network as it is exported. layers: by the name of its layer, one of the network with the same channels."""

    network: nn.Module
    layers: Mapping[str, str]

    @classmethod
    def of(cls, network: nn.Module, example: Tensor) -> Exported:
        """Fuse the branches of a network that has some."""
        if not is_fusible(network):
            return cls(network, {name: name for name in layer_shapes(network)})
        fused, _ = fused_checked(network, example)
        return cls(fused, trained_layers(network, fused))


def example_input(context: Context) -> Tensor:
    """Return zeros in the shape of one image, (1, C, H, W)."""
    return torch.zeros(1, *context.preprocessing.input_shape)


def require_measurable(network: nn.Module, shapes: Shapes, widths: Widths, example: Tensor) -> None:
    """Raise InputError for a network whose exported graph can't be resized, which measuring its latency needs.

    widths: narrower ones, to try. example: (1, C, H, W).
    """
    exported = Exported.of(network, example)
    with tempfile.TemporaryDirectory() as folder:
        file = to_onnx(exported.network, Path(folder) / "network.onnx", _image_shape(example), opset=18, batch=None)
        graph = onnx.load(file.path)
    layers = layer_names(exported.network, example, graph)
    resized = resize_graph(graph, {node: shapes.layer(exported.layers[name], widths) for node, name in layers.items()})
    try:
        shape_inference.infer_shapes(resized, check_type=True, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        raise InputError(
            f"prune: latency can't be measured by layer: the exported graph can't be made narrower "
            f"({str(error).splitlines()[-1]}); give a budget in macs instead"
        ) from error


def _image_shape(example: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = example.shape
    return channels, height, width


def _bench(exported: Exported, shapes: Shapes, target: Target, context: Context, config: PruneConfig) -> LatencyBench:
    scheme = scheme_for(target) if config.precision == "int8" else None
    artifact = _exported(exported.network, context)
    names = layer_names(exported.network, example_input(context), onnx.load(artifact.path))
    layers = {node: exported.layers[name] for node, name in names.items()}
    return LatencyBench(artifact, layers, shapes.full, target, scheme)


def _latency_model(
    bench: LatencyBench, shapes: Shapes, context: Context, config: PruneConfig, cache: Path
) -> CostModel:
    table = measure_latency_table(bench, shapes, allowed_widths(shapes, config), context.seed, context.console, cache)
    costs = Costs(table.layer_ms, table.rest_ms)
    return CostModel(costs, "ms", table.full_ms, shapes.units, bench, table)


def _exported(network: nn.Module, context: Context) -> Artifact:
    file = to_onnx(network, context.folder / "before.onnx", context.preprocessing.input_shape, opset=18, batch=None)
    return file.artifact(context.preprocessing, context.classes)
