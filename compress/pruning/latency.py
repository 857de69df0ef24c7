"""Latency tables: the time of each layer by its shape, fitted to measurements in the target's runtime."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from scipy.optimize import nnls

from compress.networks.layers import LayerShape
from compress.process.code_digest import code_digest
from compress.pruning.shapes import Shapes, resize_graph
from compress.quantization.inspection import executed_operators
from compress.verdict.statistics import speedup
from export.plan import plan_quantization
from export.quantize import insert_qdq
from export.rewrites.hard_activations import rewrite_hard_activations
from export.scheme import Scheme
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.console import Console, SilentConsole
from runtimes.files import write_bytes, write_json
from runtimes.measure import measure
from runtimes.target import Target

Float64 = npt.NDArray[np.float64]

SAMPLES = 24  # copies to measure, the last of them unpruned; the time of a layer has seven coefficients
REFINEMENT_WEIGHT = 4  # a sample near the requested cost counts as often as this many others
REWEIGHTINGS = 4
NARROWEST = 0.1  # share of the channels in the narrowest copies
ALIGNMENTS = (1, 16, 32)  # channel multiples to which kernels may pad
VECTOR = 16  # channels; other counts may use a slower kernel: INT8 depthwise layers take longer with 72 than with 144
TIMING = Timing(warmup=5, blocks=24, runs_per_block=5, sessions=1)
PROFILED_RUNS = 40
RANGE = (-4.0, 4.0)  # of all activations: latency does not depend on the values
REST = ""  # time outside of weighted layers: pooling, additions, conversions, call overhead


@dataclass(frozen=True)
class LatencySample:
    """Measured latency of a resized copy of a network.

    shapes: by layer. ratio: p50 divided by that of the unpruned network, runs interleaved. milliseconds: profiled time
    by layer, and of the rest under REST.
    """

    shapes: Mapping[str, LayerShape]
    ratio: float
    milliseconds: Mapping[str, float]


class LatencyTable:
    """Latency in ms by layer and shape, fitted to samples.

    The time of a layer is a + b * inputs + c * outputs + sum of d_k * weights_k + e * outputs where these are no
    multiple of VECTOR; weights_k counts the weights with channels rounded up to ALIGNMENTS[k]. All coefficients are
    non-negative. Because of e, a wider layer can be faster.
    """

    def __init__(self, full_ms: float, samples: list[LatencySample]) -> None:
        """Fit the coefficients. full_ms: p50 of the unpruned network, to which the samples' ratios refer."""
        self.full_ms, self.samples = full_ms, samples
        scaled = [self._scaled(sample) for sample in samples]
        self._coefficients = {
            layer: _fit([_features(sample.shapes[layer]) for sample in samples], [times[layer] for times in scaled])
            for layer in samples[0].shapes
        }
        channels = [sum(shape.outputs for shape in sample.shapes.values()) for sample in samples]
        self._coefficients[REST] = _fit(
            [np.asarray([1.0, count]) for count in channels], [times[REST] for times in scaled]
        )

    def refined(self, samples: list[LatencySample]) -> LatencyTable:
        """Return a table fitted to more samples, near the requested cost, which have a higher weight."""
        return LatencyTable(self.full_ms, [*self.samples, *samples * REFINEMENT_WEIGHT])

    def layer_ms(self, layer: str, shape: LayerShape) -> float:
        """Return the time of a layer with the given shape."""
        return float(_features(shape) @ self._coefficients[layer])

    def rest_ms(self, channels: float) -> float:
        """Return the time outside of layers. channels: sum of all layers' outputs."""
        return float(np.asarray([1.0, channels]) @ self._coefficients[REST])

    def _scaled(self, sample: LatencySample) -> dict[str, float]:
        """Return a sample's profiled times, scaled so that they add up to its measured latency."""
        factor = sample.ratio * self.full_ms / sum(sample.milliseconds.values())
        return {name: factor * time for name, time in sample.milliseconds.items()}


def _features(shape: LayerShape) -> Float64:
    weights = [_padded(shape.outputs, multiple) * _padded(shape.inputs, multiple) / shape.groups
               for multiple in ALIGNMENTS]  # fmt: skip
    unaligned = shape.outputs if shape.outputs % VECTOR else 0
    return np.asarray([1.0, shape.inputs, shape.outputs, *weights, unaligned])


def _padded(channels: int, multiple: int) -> int:
    return -(-channels // multiple) * multiple


def _fit(features: list[Float64], milliseconds: list[float]) -> Float64:
    """Return non-negative coefficients with the least squared errors relative to the predictions.

    Errors relative to the measured times would favour the samples that were measured too low, and bias predictions.
    """
    times = np.maximum(np.asarray(milliseconds), 1e-6)
    stacked = np.stack(features)
    scale = times
    for _ in range(REWEIGHTINGS):
        coefficients: Float64 = nnls(stacked / scale[:, None], times / scale)[0]
        scale = np.maximum(stacked @ coefficients, 0.05 * np.median(times))
    return coefficients


@dataclass(frozen=True)
class LatencyBench:
    """Measures resized copies of an exported network against the network itself.

    layers: module name by the layer's name in the graph. full: the network's own shapes, by module. scheme: of the INT8
    file to measure; None for float32.
    """

    float32: Artifact
    layers: Mapping[str, str]
    full: Mapping[str, LayerShape]
    target: Target
    scheme: Scheme | None

    def graph(self, shapes: Mapping[str, LayerShape]) -> onnx.ModelProto:
        """Return the graph with other shapes (by module) and random weights, in the precision to measure."""
        model = onnx.load(self.float32.path)
        model = resize_graph(model, {name: shapes[module] for name, module in self.layers.items()})
        if self.scheme is None:
            return model
        if self.scheme.placement == "every-operator":
            model = rewrite_hard_activations(model)
        return insert_qdq(model, dict.fromkeys(plan_quantization(model, self.scheme).ranged, RANGE), self.scheme).model

    @cached_property
    def _unpruned(self) -> onnx.ModelProto:
        return self.graph(self.full)

    def measure_copy(self, shapes: Mapping[str, LayerShape]) -> tuple[LatencySample, float]:
        """Measure a copy with the given shapes; return the sample and the p50 of the unpruned network in ms."""
        with tempfile.TemporaryDirectory(prefix="compress-") as folder:
            unpruned = self._artifact(Path(folder) / "unpruned.onnx", self._unpruned)
            pruned = self._artifact(Path(folder) / "pruned.onnx", self.graph(shapes))
            first, second = measure([unpruned, pruned], self.target, None, TIMING, SilentConsole(), with_energy=False)
            times = dict.fromkeys([*shapes, REST], 0.0)
            for node in executed_operators(pruned, self.target, PROFILED_RUNS):
                times[self.layers.get(node.layer or REST, REST)] += node.time_ms
        ratio = 1 / speedup(first.latency_ms, second.latency_ms, 0.95).value
        return LatencySample(shapes, ratio, times), first.latency_ms_p50

    def _artifact(self, path: Path, model: onnx.ModelProto) -> Artifact:
        write_bytes(path, model.SerializeToString())
        return self.float32.derive(path)


def measure_latency_table(
    bench: LatencyBench, shapes: Shapes, allowed: Mapping[str, list[int]], seed: int, console: Console, cache: Path
) -> LatencyTable:
    """Return the latency table of a network, measured at random allowed widths, or read from the folder `cache`."""
    identity = json.dumps(_identity(bench, shapes, allowed, seed), sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()
    path = cache / f"{key}.json"
    if path.exists():
        return _from_json(json.loads(path.read_text()))
    rng = np.random.default_rng(seed)
    samples, full_ms = [], []
    for index in range(SAMPLES):
        share = NARROWEST + (1 - NARROWEST) * index / (SAMPLES - 1)  # rises from NARROWEST to 1
        shares = {name: np.clip(share * rng.uniform(0.5, 1.5), 0, 1) for name in allowed}
        widths = {name: counts[round(shares[name] * (len(counts) - 1))] for name, counts in allowed.items()}
        widths = {} if index == SAMPLES - 1 else widths
        sample, ms = bench.measure_copy(shapes.layers(widths))
        samples.append(sample)
        full_ms.append(ms)
        console.progress("measure widths", index + 1, SAMPLES)
    table = LatencyTable(float(np.median(full_ms)), samples)
    write_json(path, {"full_ms": table.full_ms, "samples": [_to_json(sample) for sample in samples]})
    return table


def _identity(bench: LatencyBench, shapes: Shapes, allowed: Mapping[str, list[int]], seed: int) -> dict[str, object]:
    """Return everything that a table depends on: not the weights, so networks of one architecture share a table."""
    return {
        "layers": {name: asdict(shape) for name, shape in shapes.layers({}).items()},
        "input": bench.float32.manifest.input_shape,
        "choices": dict(allowed),
        "target": asdict(bench.target),
        "scheme": bench.scheme.name if bench.scheme else None,
        "environment": environment.describe().for_runtimes(),
        "code": code_digest(),
        "seed": seed,
    }


def _to_json(sample: LatencySample) -> dict[str, Any]:
    return {
        "shapes": {name: [shape.outputs, shape.inputs, shape.groups] for name, shape in sample.shapes.items()},
        "ratio": sample.ratio,
        "milliseconds": dict(sample.milliseconds),
    }


def _from_json(fields: dict[str, Any]) -> LatencyTable:
    samples = [
        LatencySample(
            {name: LayerShape(*shape) for name, shape in sample["shapes"].items()},
            sample["ratio"],
            sample["milliseconds"],
        )
        for sample in fields["samples"]
    ]
    return LatencyTable(fields["full_ms"], samples)
