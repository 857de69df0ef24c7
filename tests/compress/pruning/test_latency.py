"""Tests of latency tables: they recover a known staircase, and are stored once measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from consoles import RecordingConsole
from networks import Chain

from compress.networks.layers import LayerShape
from compress.pruning import latency
from compress.pruning.channels import find_groups
from compress.pruning.latency import REST, LatencyBench, LatencySample, LatencyTable, measure_latency_table
from compress.pruning.shapes import Shapes, layer_names
from compress.quantization.schemes import SCHEMES
from export.to_onnx import to_onnx
from runtimes.clock import Timing
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target


def staircase_ms(shape: LayerShape) -> float:
    padded = -(-shape.outputs // 16) * 16 * (-(-shape.inputs // 16) * 16)
    return 0.01 + 1e-5 * padded + 2e-5 * shape.outputs


def staircase_table(seed: int = 0, noise: float = 0.0) -> LatencyTable:
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(24):
        a, b = rng.integers(8, 129, 2)
        shapes = {"one": LayerShape(int(a), 3, 1), "two": LayerShape(int(b), int(a), 1)}
        times = {name: staircase_ms(shape) * rng.normal(1, noise) for name, shape in shapes.items()}
        times[REST] = 0.05 + 1e-4 * (a + b)
        profiled = {name: 3 * time for name, time in times.items()}  # the profiler slows everything down
        samples.append(LatencySample(shapes, sum(times.values()) / 2.0, profiled))
    return LatencyTable(2.0, samples)


@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 0.001), (0.05, 0.1)])
def test_a_staircase_is_recovered_in_spite_of_the_profilers_overhead(noise: float, allowed: float) -> None:
    table = staircase_table(noise=noise)
    for shape in (LayerShape(64, 64, 1), LayerShape(65, 64, 1), LayerShape(17, 100, 1), LayerShape(128, 128, 1)):
        assert table.layer_ms("two", shape) == pytest.approx(staircase_ms(shape), rel=allowed)
    assert table.rest_ms(100) == pytest.approx(0.06, rel=allowed)
    shapes = {"one": LayerShape(40, 3, 1), "two": LayerShape(64, 40, 1)}
    expected = sum(staircase_ms(shape) for shape in shapes.values()) + 0.05 + 1e-4 * 104
    total = sum(table.layer_ms(name, shape) for name, shape in shapes.items()) + table.rest_ms(104)
    assert total == pytest.approx(expected, rel=allowed)


@pytest.mark.parametrize("aligned", [True, False])
def test_among_aligned_or_unaligned_widths_a_wider_layer_is_never_faster(aligned: bool) -> None:
    table = staircase_table(noise=0.5)
    counts = [count for count in range(1, 200) if (count % 16 == 0) is aligned]
    times = [table.layer_ms("two", LayerShape(count, 64, 1)) for count in counts]
    assert times == sorted(times)


def test_unaligned_layers_may_be_slower_than_wider_ones() -> None:
    rng = np.random.default_rng(0)

    def slow_unaligned_ms(outputs: int) -> float:
        return 1e-4 * outputs * (4 if outputs % 16 else 1)

    samples = []
    for _ in range(24):
        outputs = int(rng.integers(1, 17)) * 8
        times = {"one": slow_unaligned_ms(outputs), REST: 0.01}
        samples.append(LatencySample({"one": LayerShape(outputs, 3, 1)}, sum(times.values()), times))
    table = LatencyTable(1.0, samples)
    for outputs in (72, 80, 120, 128):
        expected = pytest.approx(slow_unaligned_ms(outputs), rel=0.02)
        assert table.layer_ms("one", LayerShape(outputs, 3, 1)) == expected


def test_refining_samples_weigh_more() -> None:
    """The first layer is measured at twice the time that the samples near the requested cost show."""
    far, near = (
        LatencySample({"one": LayerShape(16, 16, 1)}, ratio, {"one": ratio, REST: 1e-9}) for ratio in (2.0, 1.0)
    )
    table = LatencyTable(1.0, [far])
    refined = table.refined([near])
    assert table.layer_ms("one", LayerShape(16, 16, 1)) == pytest.approx(2.0)
    assert 1.0 < refined.layer_ms("one", LayerShape(16, 16, 1)) < 1.5
    assert refined.samples == [far, near, near, near, near]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LatencyBench, Shapes]:
    monkeypatch.setattr(latency, "SAMPLES", 4)
    monkeypatch.setattr(latency, "TIMING", Timing(warmup=1, blocks=4, runs_per_block=2))
    network, example = Chain(48).eval(), torch.zeros(1, 3, 32, 32)
    file = to_onnx(network, tmp_path / "unpruned.onnx", 32, 18, None)
    artifact = file.artifact(Preprocessing(32, 32), tuple("abcde"))
    names = layer_names(network, example, onnx.load(file.path))
    shapes = Shapes(network, find_groups(network, example))
    return LatencyBench(artifact, names, shapes.full, Target("here"), SCHEMES["x86-vnni"]), shapes


def test_a_table_is_measured_once_and_stored(bench: tuple[LatencyBench, Shapes], tmp_path: Path) -> None:
    latency_bench, shapes = bench
    allowed = {name: [group.units // 2, group.units] for name, group in shapes.groups.items()}
    cache, console = tmp_path / "tables", RecordingConsole()
    first = measure_latency_table(latency_bench, shapes, allowed, 0, console, cache)
    assert console.events == [("measure widths", done, 4) for done in (1, 2, 3, 4)]
    assert all(set(sample.milliseconds) == {*shapes.full, REST} for sample in first.samples)
    assert all(sample.milliseconds[layer] > 0 for sample in first.samples for layer in shapes.full)
    assert all(sample.ratio > 0 for sample in first.samples)
    narrowest, *_, unpruned = [sample.shapes for sample in first.samples]
    assert unpruned == shapes.full
    assert narrowest["a"].outputs == shapes.full["a"].outputs // 2
    console.events.clear()
    again = measure_latency_table(latency_bench, shapes, allowed, 0, console, cache)
    assert not console.events
    assert again.samples == first.samples
    for layer, shape in shapes.full.items():
        assert again.layer_ms(layer, shape) == first.layer_ms(layer, shape)
    (stored,) = cache.iterdir()
    assert json.loads(stored.read_text())["full_ms"] == first.full_ms
    measure_latency_table(latency_bench, shapes, allowed, 1, console, cache)
    assert console.events  # another seed is measured
