"""Candidates for layers that stay float, and how to decide whether a candidate is fast enough."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Set
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto

from compress.quantization.ort_graph import OrtGraph
from compress.verdict.statistics import Estimate, speedup
from export.layers import layers_of
from export.plan import TABLE_OPS
from export.quantize import Quantized
from export.scheme import Scheme
from export.subgraph import with_outputs
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.console import SilentConsole
from runtimes.files import write_bytes
from runtimes.measure import Measurement, measure
from runtimes.target import Target

MAX_LEADING_LAYERS = 3  # first layers: few channels and many pixels, where integer kernels gain least
SLOWER = 0.99  # current / candidate p50 below this: the candidate is slower
LITTLE_SLOWER = 0.9  # between this and SLOWER: it may be worth it
FASTER = 1.01  # lower bound of current / candidate p50 above this: the candidate is faster
MAX_MULTIPLICATIONS = 0.05  # share of all multiplications that may stay float if latency cannot be measured
FIRST_TIMING = Timing(warmup=5, blocks=8, runs_per_block=3, sessions=1)
SURE = 0.99  # confidence at which the first timing is enough
RUNS_PER_BLOCK, MIN_BLOCKS, MAX_BLOCKS = 5, 16, 200
BUDGET_MS = 1000.0  # duration of a comparison, which sets the number of blocks

Speed = Literal["slower", "little-slower", "alike", "faster"]
CompareSpeed = Callable[[Quantized, Quantized], Speed]  # speed of the second model relative to the first


def leading_layers(model: onnx.ModelProto) -> list[frozenset[str]]:
    """Return candidates to keep in float: the first layer, the first two, and so on up to MAX_LEADING_LAYERS.

    With them stay the activations between them, as of SiLU; else these would still round what the layers write.
    """
    layers, constants = list(layers_of(model)), {tensor.name for tensor in model.graph.initializer}
    nodes = [node.name for node in model.graph.node if node.name in layers or _is_of_activation(node, constants)]
    return [frozenset(nodes[: nodes.index(layers[count])])
            for count in range(1, min(MAX_LEADING_LAYERS, len(layers) - 1) + 1)]  # fmt: skip


def _is_of_activation(node: NodeProto, constants: Set[str]) -> bool:
    """Return whether a node is part of an activation function with integer kernels, such as SiLU and HardSwish."""
    return node.op_type in (*TABLE_OPS, "Mul") or (node.op_type == "Add" and not constants.isdisjoint(node.input))


def runs_here(scheme: Scheme) -> bool:
    """Return whether a scheme is that of this machine's processor, so that latency can be measured here."""
    return scheme.name == environment.detect_instruction_set()


def by_latency(float32: Artifact, target: Target) -> CompareSpeed:
    """Return a comparison that measures both models on this machine, interleaved."""

    def compare(current: Quantized, candidate: Quantized) -> Speed:
        ratio = _ratio(*latencies(float32, target, current.model, candidate.model, _differ), 0.95)
        if ratio.value < SLOWER:
            return "slower" if ratio.value < LITTLE_SLOWER else "little-slower"
        return "faster" if ratio.low > FASTER else "alike"

    return compare


def by_multiplications(model: onnx.ModelProto, scheme: Scheme) -> CompareSpeed:
    """Return a comparison for targets whose latency cannot be measured here.

    On a CPU, a few percent of the multiplications may stay float; on a GPU, none.
    """
    if scheme.signed:
        return lambda current, candidate: "slower"
    counts = multiplications(model)

    def compare(current: Quantized, candidate: Quantized) -> Speed:
        in_float = sum(count for name, count in counts.items() if name not in candidate.weights)
        return "alike" if in_float <= MAX_MULTIPLICATIONS * sum(counts.values()) else "slower"

    return compare


def latency_ratio(float32: Artifact, target: Target, first: onnx.ModelProto, second: onnx.ModelProto) -> Estimate:
    """Return the p50 latency of the first model over that of the second, with bounds."""
    return _ratio(*latencies(float32, target, first, second), 0.95)


def _ratio(first: Measurement, second: Measurement, confidence: float) -> Estimate:
    return speedup(first.latency_ms, second.latency_ms, confidence)


def _differ(first: Measurement, second: Measurement) -> bool:
    """Return whether a short measurement already shows which model is faster."""
    ratio = _ratio(first, second, SURE)
    return ratio.high < SLOWER or ratio.low > FASTER


def latencies(
    float32: Artifact,
    target: Target,
    first: onnx.ModelProto,
    second: onnx.ModelProto,
    is_enough: Callable[[Measurement, Measurement], bool] = lambda first, second: False,
) -> tuple[Measurement, Measurement]:
    """Measure two models on this machine, interleaved.

    float32: artifact with the inputs, outputs and batch size of both models. is_enough: called with a short first
    measurement; returns whether to leave it at that.
    """
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            temporary_artifact(float32, Path(folder) / f"{index}.onnx", model)
            for index, model in enumerate((first, second))
        ]
        before, after = measure(artifacts, target, None, FIRST_TIMING, SilentConsole(), with_energy=False)
        if is_enough(before, after):
            return before, after
        blocks = int(np.clip(BUDGET_MS / (2 * RUNS_PER_BLOCK * before.latency_ms_p50), MIN_BLOCKS, MAX_BLOCKS))
        timing = Timing(5, blocks, RUNS_PER_BLOCK, sessions=1)
        before, after = measure(artifacts, target, None, timing, SilentConsole(), with_energy=False)
    return before, after


def temporary_artifact(float32: Artifact, path: Path, model: onnx.ModelProto) -> Artifact:
    """Write a model to `path` as an artifact without a manifest; float32: with the same inputs and outputs."""
    write_bytes(path, model.SerializeToString())
    return float32.derive(path)


def multiplications(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of multiplications of each layer for one image."""
    layers = layers_of(model)
    values = run_on_zeros(model, [layer.output for layer in layers.values()])
    return {name: layer.weight.size * int(np.prod(values[layer.output].shape[2:])) for name, layer in layers.items()}


def run_on_zeros(model: onnx.ModelProto, tensors: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Return tensors of a graph by name, for an input of zeros with the smallest batch, and that input."""
    graph = OrtGraph(with_outputs(model, tensors))
    shape = [dimension.dim_value or 1 for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    inputs = {graph.inputs[0]: np.zeros(shape, np.float32)}
    return inputs | graph.run(inputs)
