"""What widths cost: milliseconds of each layer, measured in the runtime that ships, on narrower copies of a network."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from scipy.optimize import nnls

from compress.networks.layers import LayerShape
from compress.process.code_digest import code_digest
from compress.pruning.shapes import Shapes, resized
from compress.quantization.inspection import executed_operators
from compress.verdict.statistics import speedup
from export.hard_activations import rewrite_hard_activations
from export.plan import make_plan
from export.quantize import insert_qdq
from export.scheme import Scheme
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.clock import Progress, Timing
from runtimes.console import SilentConsole
from runtimes.files import write_bytes, write_json
from runtimes.measure import measure
from runtimes.target import Target

Precision = Literal["float32", "int8"]
Float64 = npt.NDArray[np.float64]

SAMPLES = 24  # copies to measure, the last the whole network: a layer's time has seven unknowns
NEAR_WEIGHT = 4  # as many samples does one count that is near to what is looked for
REWEIGHTINGS = 4
NARROWEST = 0.1  # share of the channels in the narrowest copies
ALIGNMENTS = (1, 16, 32)  # channels to which kernels may pad
VECTOR = 16  # channels; with others some kernels go another way (72 take a depthwise layer in INT8 longer than 144)
TIMING = Timing(warmup=5, blocks=24, runs_per_block=5, sessions=1)
PROFILED_RUNS = 40
ANY_RANGE = (-4.0, 4.0)  # integers take as long whatever they hold
REST = ""  # what is no layer: pools, additions, conversions, the call itself


@dataclass(frozen=True)
class Sample:
    """A copy that was measured. ratio: its p50 over that of the whole network, interleaved; ms: per layer of it."""

    shapes: Mapping[str, LayerShape]
    ratio: float
    milliseconds: Mapping[str, float]


class LatencyTable:
    """Milliseconds by layer and width, fitted to samples.

    A layer takes a + b * inputs + c * outputs + d * weights, the weights also counted with channels rounded up to what
    kernels pad them to, and the outputs once more where they fill no whole vectors: the steps of its staircase are as
    high as the samples say, and may go down. No coefficient is below 0.
    """

    def __init__(self, full_ms: float, samples: list[Sample]) -> None:
        """Fit. full_ms: p50 of the whole network, to which every sample's ratio is relative."""
        self.full_ms, self.samples = full_ms, samples
        scaled = [self._scaled(sample) for sample in samples]
        self._coefficients = {
            layer: _fitted([_features(sample.shapes[layer]) for sample in samples], [one[layer] for one in scaled])
            for layer in samples[0].shapes
        }
        channels = [sum(width.outputs for width in sample.shapes.values()) for sample in samples]
        self._coefficients[REST] = _fitted(
            [np.asarray([1.0, count]) for count in channels], [one[REST] for one in scaled]
        )

    def refined(self, near: list[Sample]) -> LatencyTable:
        """Return a table that knows samples near to what is looked for, too, and minds these more."""
        return LatencyTable(self.full_ms, [*self.samples, *near * NEAR_WEIGHT])

    def layer_ms(self, layer: str, width: LayerShape) -> float:
        """Return what a layer takes at a width."""
        return float(_features(width) @ self._coefficients[layer])

    def rest_ms(self, channels: float) -> float:
        """Return what all that is no layer takes, where layers have so many outputs together."""
        return float(np.asarray([1.0, channels]) @ self._coefficients[REST])

    def _scaled(self, sample: Sample) -> dict[str, float]:
        """Return the profiler's milliseconds of a sample, scaled to what the clock said of the whole."""
        factor = sample.ratio * self.full_ms / sum(sample.milliseconds.values())
        return {name: factor * time for name, time in sample.milliseconds.items()}


def _features(width: LayerShape) -> Float64:
    weights = [_padded(width.outputs, step) * _padded(width.inputs, step) / width.groups for step in ALIGNMENTS]
    unaligned = width.outputs if width.outputs % VECTOR else 0
    return np.asarray([1.0, width.inputs, width.outputs, *weights, unaligned])


def _padded(channels: int, step: int) -> int:
    return -(-channels // step) * step


def _fitted(features: list[Float64], milliseconds: list[float]) -> Float64:
    """Return the coefficients, none negative, with the least squares relative to what they predict.

    Relative to what was measured, times that came out too low would weigh most, and all predictions be too low.
    """
    times = np.maximum(np.asarray(milliseconds), 1e-6)
    stacked = np.stack(features)
    scale = times
    for _ in range(REWEIGHTINGS):
        found: Float64 = nnls(stacked / scale[:, None], times / scale)[0]
        scale = np.maximum(stacked @ found, 0.05 * np.median(times))
    return found


@dataclass(frozen=True)
class Bench:
    """Measures narrower copies of an exported network against it. layers: the module of each layer of the graph."""

    float32: Artifact
    layers: Mapping[str, str]
    target: Target
    scheme: Scheme | None  # None for float32

    def graph(self, shapes: Mapping[str, LayerShape]) -> onnx.ModelProto:
        """Return the graph at other widths (by module), as it would ship, with random weights."""
        model = onnx.load(self.float32.path)
        model = resized(model, {name: shapes[module] for name, module in self.layers.items()})
        if self.scheme is None:
            return model
        if self.scheme.placement == "every-operator":
            model = rewrite_hard_activations(model)
        return insert_qdq(model, dict.fromkeys(make_plan(model, self.scheme).ranged, ANY_RANGE), self.scheme).model

    def sample(self, full: Mapping[str, LayerShape], shapes: Mapping[str, LayerShape]) -> tuple[Sample, float]:
        """Measure a copy; return it with the p50 of the whole network, in ms."""
        with tempfile.TemporaryDirectory(prefix="compress-") as folder:
            whole, copy = (self._artifact(Path(folder) / name, self.graph(given))
                           for name, given in (("whole.onnx", full), ("copy.onnx", shapes)))  # fmt: skip
            first, second = measure([whole, copy], self.target, None, TIMING, SilentConsole(), with_energy=False)
            times = dict.fromkeys([*shapes, REST], 0.0)
            for node in executed_operators(copy, self.target, PROFILED_RUNS):
                times[self.layers.get(node.layer or REST, REST)] += node.time_ms
        ratio = 1 / speedup(first.latency_ms, second.latency_ms, 0.95).value
        return Sample(shapes, ratio, times), first.latency_ms_p50

    def _artifact(self, path: Path, model: onnx.ModelProto) -> Artifact:
        write_bytes(path, model.SerializeToString())
        return self.float32.derive(path)


def measured_table(
    bench: Bench, shapes: Shapes, choices: Mapping[str, list[int]], seed: int, progress: Progress, cache: Path
) -> LatencyTable:
    """Return the table of a network, measured on random choices of widths unless `cache` holds it already."""
    identity = json.dumps(_identity(bench, shapes, choices, seed), sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()
    path = cache / f"{key}.json"
    if path.exists():
        return _from_json(json.loads(path.read_text()))
    rng = np.random.default_rng(seed)
    full = shapes.all({})
    samples, whole_ms = [], []
    for index in range(SAMPLES):
        share = NARROWEST + (1 - NARROWEST) * index / (SAMPLES - 1)  # from the narrowest to the whole network
        shares = {name: np.clip(share * rng.uniform(0.5, 1.5), 0, 1) for name in choices}
        widths = {name: counts[round(shares[name] * (len(counts) - 1))] for name, counts in choices.items()}
        widths = {} if index == SAMPLES - 1 else widths
        sample, ms = bench.sample(full, shapes.all(widths))
        samples.append(sample)
        whole_ms.append(ms)
        progress("measure widths", index + 1, SAMPLES)
    table = LatencyTable(float(np.median(whole_ms)), samples)
    write_json(path, {"full_ms": table.full_ms, "samples": [_to_json(sample) for sample in samples]})
    return table


def _identity(bench: Bench, shapes: Shapes, choices: Mapping[str, list[int]], seed: int) -> Any:
    """Return all that a table depends on: weights don't matter, so networks of one architecture share it."""
    return {
        "layers": {name: asdict(width) for name, width in shapes.all({}).items()},
        "input": bench.float32.manifest.input_shape,
        "choices": dict(choices),
        "target": asdict(bench.target),
        "scheme": bench.scheme.name if bench.scheme else None,
        "environment": environment.describe().for_runtimes(),
        "code": code_digest(),
        "seed": seed,
    }


def _to_json(sample: Sample) -> dict[str, Any]:
    return {
        "shapes": {name: [width.outputs, width.inputs, width.groups] for name, width in sample.shapes.items()},
        "ratio": sample.ratio,
        "milliseconds": dict(sample.milliseconds),
    }


def _from_json(content: dict[str, Any]) -> LatencyTable:
    samples = [
        Sample({name: LayerShape(*width) for name, width in one["shapes"].items()}, one["ratio"], one["milliseconds"])
        for one in content["samples"]
    ]
    return LatencyTable(content["full_ms"], samples)
