"""Layers that are better left in float: where INT8 costs accuracy and buys no time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from compress.quantization.ort_graph import OrtGraph
from compress.verdict.statistics import Estimate, speedup
from export.layers import layers_of
from export.quantize import Quantized
from export.scheme import Scheme
from export.subgraph import with_outputs
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.console import SilentConsole
from runtimes.files import write_bytes
from runtimes.measure import measure
from runtimes.target import Target

MAX_LEADING_LAYERS = 3  # few channels and many pixels: integer kernels gain least there, and every error is passed on
SLOWER = 0.99  # a ratio of latencies below this is no noise
FASTER = 1.01  # nor is one whose interval lies above this
MOST_MULTIPLICATIONS = 0.05  # where latency can't be measured: share of all that may stay float
FIRST_LOOK = Timing(warmup=5, blocks=4, runs_per_block=5, sessions=1)
RUNS_PER_BLOCK, LEAST_BLOCKS, MOST_BLOCKS = 5, 16, 200
BUDGET_MS = 1000.0  # of a comparison: many runs where one is short

Speed = Literal["slower", "alike", "faster"]
CompareSpeed = Callable[[Quantized, Quantized], Speed]  # how fast the second is, beside the first


def leading_layers(model: onnx.ModelProto) -> list[frozenset[str]]:
    """Return the first layer, the first two, and so on: candidates for float."""
    names = list(layers_of(model))
    return [frozenset(names[:count]) for count in range(1, min(MAX_LEADING_LAYERS, len(names) - 1) + 1)]


def runs_here(scheme: Scheme) -> bool:
    """Tell whether this machine's latency says something about files of a scheme."""
    return scheme.name == environment.detect_instruction_set()


def by_latency(float32: Artifact, target: Target) -> CompareSpeed:
    """Return a judge that measures both files on this machine, interleaved."""

    def speed(current: Quantized, candidate: Quantized) -> Speed:
        ratio = latency_ratio(float32, target, current.model, candidate.model)
        return "slower" if ratio.value < SLOWER else "faster" if ratio.low > FASTER else "alike"

    return speed


def by_multiplications(model: onnx.ModelProto, scheme: Scheme) -> CompareSpeed:
    """Return a judge for targets that are not at hand: on a CPU few multiplications may stay float, on a GPU none."""
    if scheme.signed:
        return lambda current, candidate: "slower"
    counts = multiplications(model)

    def speed(current: Quantized, candidate: Quantized) -> Speed:
        kept = sum(count for name, count in counts.items() if name not in candidate.weights)
        return "alike" if kept <= MOST_MULTIPLICATIONS * sum(counts.values()) else "slower"

    return speed


def latency_ratio(float32: Artifact, target: Target, slow: onnx.ModelProto, fast: onnx.ModelProto) -> Estimate:
    """Return p50 of the first over p50 of the second; inputs, outputs and batch are float32's."""
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            _artifact(float32, Path(folder) / f"{index}.onnx", model) for index, model in enumerate((slow, fast))
        ]
        look, _ = measure(artifacts, target, None, FIRST_LOOK, SilentConsole(), with_energy=False)
        blocks = int(np.clip(BUDGET_MS / (2 * RUNS_PER_BLOCK * look.latency_ms_p50), LEAST_BLOCKS, MOST_BLOCKS))
        timing = Timing(5, blocks, RUNS_PER_BLOCK, sessions=1)
        first, second = measure(artifacts, target, None, timing, SilentConsole(), with_energy=False)
    return speedup(first.latency_ms, second.latency_ms, 0.95)


def _artifact(float32: Artifact, path: Path, model: onnx.ModelProto) -> Artifact:
    write_bytes(path, model.SerializeToString())
    return float32.derive(path)


def multiplications(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each layer multiplies for one image."""
    layers = layers_of(model)
    network = OrtGraph(with_outputs(model, [layer.output for layer in layers.values()]))
    shape = [size or 1 for size in _input_shape(model)]
    values = network.run({network.inputs[0]: np.zeros(shape, np.float32)})
    return {name: layer.weight.size * int(np.prod(values[layer.output].shape[2:])) for name, layer in layers.items()}


def _input_shape(model: onnx.ModelProto) -> list[int]:
    return [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
