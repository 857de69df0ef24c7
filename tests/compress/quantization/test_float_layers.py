"""Layers that may stay float: decided by latency if it can be measured, else by multiplications."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_graphs
import pytest
from onnx import numpy_helper

from compress.quantization import float_layers
from compress.quantization.float_layers import (
    by_latency,
    by_multiplications,
    leading_layers,
    multiplications,
)
from compress.quantization.schemes import SCHEMES
from compress.verdict.statistics import Estimate
from export.plan import plan_quantization
from export.quantize import Quantized, insert_qdq


def quantized(float_nodes: frozenset[str]) -> Quantized:
    model, scheme = onnx_graphs.residual_model(channels=3), SCHEMES["generic"]
    ranges = dict.fromkeys(plan_quantization(model, scheme).ranged, (-1.0, 1.0))
    return insert_qdq(model, ranges, scheme, float_nodes=float_nodes)


def test_candidates_are_the_first_layers() -> None:
    first, second, third = leading_layers(onnx_graphs.residual_model(channels=3))
    assert (first, second, third) == ({"first"}, {"first", "depthwise"}, {"first", "depthwise", "pointwise"})


def test_activations_between_the_first_layers_are_float_with_them() -> None:
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    layer = "c{0} = Conv({1}, w) g{0} = Sigmoid(c{0}) m{0} = Mul(c{0}, g{0}) "
    nodes = layer.format(0, "x") + layer.format(1, "m0") + layer.format(2, "m1") + "y = Identity(m2)"
    first, second = leading_layers(onnx_graphs.parsed(nodes, "", [weight]))
    assert first == {"Conv_c0", "Sigmoid_g0", "Mul_m0"}
    assert second == first | {"Conv_c1", "Sigmoid_g1", "Mul_m1"}


def test_multiplications_of_one_image() -> None:
    pixels = 8 * 8
    expected = {"first": 8 * 3 * 9 * pixels, "depthwise": 8 * 9 * pixels, "pointwise": 8 * 8 * pixels, "gemm": 5 * 8}
    assert multiplications(onnx_graphs.residual_model(channels=3)) == expected


@pytest.mark.parametrize(("share", "allowed"), [(0.9, True), (0.1, False)])
def test_few_multiplications_may_stay_float(share: float, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_layers, "MAX_MULTIPLICATIONS", share)
    judge = by_multiplications(onnx_graphs.residual_model(channels=3), SCHEMES["generic"])
    speed = judge(quantized(frozenset()), quantized(frozenset({"first"})))  # 64 % of them
    assert speed == ("alike" if allowed else "slower")


def test_on_a_gpu_no_layer_stays_float_without_measurement() -> None:
    judge = by_multiplications(onnx_graphs.residual_model(channels=3), SCHEMES["tensorrt"])
    assert judge(quantized(frozenset()), quantized(frozenset({"first"}))) == "slower"


@pytest.mark.parametrize(("ratio", "low", "speed"), [
    (1.2, 1.1, "faster"), (1.2, 0.9, "alike"), (0.995, 0.98, "alike"), (0.95, 0.94, "little-slower"),
    (0.85, 0.84, "slower"),
])  # fmt: skip
def test_the_speed_follows_from_the_ratio_of_latencies(
    ratio: float, low: float, speed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float_layers, "latencies", lambda *_: (SimpleNamespace(latency_ms=None),) * 2)
    monkeypatch.setattr(float_layers, "speedup", lambda *_: Estimate(ratio, low, 2 * ratio - low))
    artifact: Any = SimpleNamespace()
    assert by_latency(artifact, artifact)(quantized(frozenset()), quantized(frozenset({"first"}))) == speed


def test_fast_networks_are_measured_in_more_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[int] = []

    def measure(
        artifacts: list[Any], target: Any, images: None, timing: Any, progress: Any, with_energy: bool
    ) -> list[Any]:
        blocks.append(timing.blocks)
        runs = np.full((timing.blocks, timing.runs_per_block), speed["ms"])
        return [SimpleNamespace(latency_ms=runs, latency_ms_p50=speed["ms"])] * 2

    monkeypatch.setattr(float_layers, "measure", measure)
    monkeypatch.setattr(float_layers, "temporary_artifact", lambda *_: None)
    model = onnx_graphs.residual_model(channels=3)
    for milliseconds in (0.1, 100.0):
        speed = {"ms": milliseconds}
        assert float_layers.latency_ratio(None, None, model, model).value == 1  # type: ignore[arg-type]
    assert blocks == [8, 200, 8, 16]


@pytest.mark.parametrize(("candidate_ms", "blocks"), [(1.2, [8]), (0.8, [8]), (1.0, [8, 100])])
def test_a_clear_difference_is_measured_in_few_blocks(
    candidate_ms: float, blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(artifacts: list[Any], target: Any, images: None, timing: Any, *_: Any, with_energy: bool) -> list[Any]:
        measured.append(timing.blocks)
        noise = np.random.default_rng(0).normal(1, 0.01, (2, timing.blocks, timing.runs_per_block))
        return [SimpleNamespace(latency_ms=ms * part, latency_ms_p50=ms)
                for ms, part in zip((1.0, candidate_ms), noise, strict=True)]  # fmt: skip

    monkeypatch.setattr(float_layers, "measure", measure)
    monkeypatch.setattr(float_layers, "temporary_artifact", lambda *_: None)
    artifact: Any = SimpleNamespace()
    by_latency(artifact, artifact)(quantized(frozenset()), quantized(frozenset({"first"})))
    assert measured == blocks
