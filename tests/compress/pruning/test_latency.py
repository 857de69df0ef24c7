"""The table of milliseconds: it finds a known staircase again, and what it says of a real network is near the clock."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import Chain

from compress.networks.layers import LayerShape
from compress.pruning import latency
from compress.pruning.groups import find_groups
from compress.pruning.latency import REST, Bench, LatencyTable, Sample, measured_table
from compress.pruning.shapes import Shapes, layer_names
from compress.quantization.schemes import SCHEMES
from export.to_onnx import INPUT_NAME, OUTPUT_NAME, to_onnx
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target


def staircase_ms(width: LayerShape) -> float:
    padded = -(-width.outputs // 16) * 16 * (-(-width.inputs // 16) * 16)
    return 0.01 + 1e-5 * padded + 2e-5 * width.outputs


def made(seed: int = 0, noise: float = 0.0) -> LatencyTable:
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(24):
        a, b = rng.integers(8, 129, 2)
        shapes = {"one": LayerShape(int(a), 3, 1), "two": LayerShape(int(b), int(a), 1)}
        times = {name: staircase_ms(width) * rng.normal(1, noise) for name, width in shapes.items()}
        times[REST] = 0.05 + 1e-4 * (a + b)
        samples.append(Sample(shapes, sum(times.values()) / 2.0, {name: 3 * time for name, time in times.items()}))
    return LatencyTable(2.0, samples)


@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 0.001), (0.05, 0.1)])
def test_a_staircase_is_found_again_whatever_the_profiler_adds(noise: float, allowed: float) -> None:
    table = made(noise=noise)
    for width in (LayerShape(64, 64, 1), LayerShape(65, 64, 1), LayerShape(17, 100, 1), LayerShape(128, 128, 1)):
        assert table.layer_ms("two", width) == pytest.approx(staircase_ms(width), rel=allowed)
    assert table.rest_ms(100) == pytest.approx(0.06, rel=allowed)
    shapes = {"one": LayerShape(40, 3, 1), "two": LayerShape(64, 40, 1)}
    expected = sum(staircase_ms(width) for width in shapes.values()) + 0.05 + 1e-4 * 104
    total = sum(table.layer_ms(name, width) for name, width in shapes.items()) + table.rest_ms(104)
    assert total == pytest.approx(expected, rel=allowed)


@pytest.mark.parametrize("aligned", [True, False])
def test_among_widths_that_fill_vectors_or_do_not_none_is_faster_than_a_narrower_one(aligned: bool) -> None:
    table = made(noise=0.5)
    counts = [count for count in range(1, 200) if (count % 16 == 0) is aligned]
    times = [table.layer_ms("two", LayerShape(count, 64, 1)) for count in counts]
    assert times == sorted(times)


def test_layers_that_fill_no_whole_vectors_may_take_longer_than_wider_ones() -> None:
    rng = np.random.default_rng(0)

    def slow_rest(width: LayerShape) -> float:
        return 1e-4 * width.outputs * (4 if width.outputs % 16 else 1)

    samples = []
    for _ in range(24):
        shapes = {"one": LayerShape(int(rng.integers(1, 17)) * 8, 3, 1)}
        times = {"one": slow_rest(shapes["one"]), REST: 0.01}
        samples.append(Sample(shapes, sum(times.values()), times))
    table = LatencyTable(1.0, samples)
    for outputs in (72, 80, 120, 128):
        assert table.layer_ms("one", LayerShape(outputs, 3, 1)) == pytest.approx(
            slow_rest(LayerShape(outputs, 3, 1)), rel=0.02
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Shapes]:
    monkeypatch.setattr(latency, "SAMPLES", 4)
    monkeypatch.setattr(latency, "TIMING", Timing(warmup=1, blocks=4, runs_per_block=2))
    network, example = Chain(16).eval(), torch.zeros(1, 3, 32, 32)
    path = to_onnx(network, tmp_path / "whole.onnx", 32, 18, None).path
    manifest = Manifest(
        sha256_file(path), path.stat().st_size, "onnx", "float32", INPUT_NAME, (None, 3, 32, 32), OUTPUT_NAME,
        Preprocessing(32, 32), tuple("abcde"), 18, versions={},
    )  # fmt: skip
    names = layer_names(network, example, onnx.load(path))
    shapes = Shapes(network, find_groups(network, example))
    return Bench(Artifact(path, manifest), names, Target("here"), SCHEMES["x86-vnni"]), shapes


def test_a_table_is_measured_once_and_kept(bench: tuple[Bench, Shapes], tmp_path: Path) -> None:
    one, shapes = bench
    choices = {name: [group.units // 2, group.units] for name, group in shapes.groups.items()}
    told: list[tuple[int, int]] = []
    first = measured_table(
        one, shapes, choices, 0, lambda what, done, total: told.append((done, total)), tmp_path / "t"
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(set(sample.milliseconds) == {*shapes.full, REST} for sample in first.samples)
    assert all(sample.milliseconds[layer] > 0 for sample in first.samples for layer in shapes.full)  # each was found
    assert first.samples[-1].ratio > first.samples[0].ratio  # from the narrowest to the widest
    told.clear()
    again = measured_table(
        one, shapes, choices, 0, lambda what, done, total: told.append((done, total)), tmp_path / "t"
    )
    assert not told
    assert again.samples == first.samples
    for layer, width in shapes.all({}).items():
        assert again.layer_ms(layer, width) == first.layer_ms(layer, width)
    (kept,) = (tmp_path / "t").iterdir()
    assert json.loads(kept.read_text())["full_ms"] == first.full_ms
    measured_table(one, shapes, choices, 1, lambda what, done, total: told.append((done, total)), tmp_path / "t")
    assert told  # another seed
