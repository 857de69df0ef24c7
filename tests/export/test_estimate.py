"""Tests of export.estimate: small graphs by hand, and published latencies of a Jetson Orin Nano."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imagenet_graphs
import numpy as np
import onnx
import onnx_graphs
import pytest
import yaml
from onnx import helper

from export.estimate import ERROR_BOUND, LABEL, estimate, estimate_layers
from export.quantize import insert_qdq
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import InputError
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import DataSheet, Target

# 1 GFLOP/s, 2 and 4 of them in float16 and INT8; 1 MB/s; nothing is lost, and a launch takes 1 ms.
SLOW = DataSheet("slow", 1e-3, 1e-3, 1000, 2e-3, 4e-3, arithmetic_efficiency=1, bandwidth_efficiency=1)
TARGETS = Path(__file__).parents[2] / "recipes" / "targets"
ORIN_NANO = DataSheet(**yaml.safe_load((TARGETS / "jetson-orin-nano.yaml").read_text())["datasheet"])
# Milliseconds on it with JetPack 6 and TensorRT 10.3, batch 1, 224 px.
PUBLISHED_MS = {
    "mobilenet_v2": {"float16": 0.850, "int8": 0.781},
    "resnet18": {"float16": 0.758, "int8": 0.485},
    "resnet50": {"float16": 1.814, "int8": 1.190},
}


def network(name: str) -> onnx.ModelProto:
    return imagenet_graphs.mobilenet_v2() if name == "mobilenet_v2" else imagenet_graphs.resnet(int(name[6:]))


@pytest.mark.parametrize(("name", "published"), PUBLISHED_MS.items())
def test_published_latencies_are_met_within_the_bound(name: str, published: dict[str, float]) -> None:
    for precision, published_ms in published.items():
        layers = estimate_layers(network(name), ORIN_NANO, precision)  # type: ignore[arg-type]
        estimated_ms = sum(layer.latency_ms for layer in layers)
        error = estimated_ms / published_ms - 1
        print(f"{name} {precision}: {estimated_ms:.3f} ms estimated, {published_ms:.3f} published, {error:+.0%}")
        assert abs(error) < ERROR_BOUND


def test_the_best_precision_is_told_as_published() -> None:
    for name in PUBLISHED_MS:
        half, int8 = (sum(layer.latency_ms for layer in estimate_layers(network(name), ORIN_NANO, precision))
                      for precision in ("float16", "int8"))  # fmt: skip
        published = PUBLISHED_MS[name]
        assert half / int8 == pytest.approx(published["float16"] / published["int8"], rel=0.3)


@pytest.mark.parametrize(
    ("name", "macs", "weights"),
    [("resnet18", 1814e6, 11.69e6), ("resnet50", 4089e6, 25.5e6), ("mobilenet_v2", 301e6, 3.5e6)],
)
def test_the_networks_are_the_known_ones(name: str, macs: float, weights: float) -> None:
    layers = estimate_layers(network(name), ORIN_NANO, "float32")
    assert sum(layer.macs for layer in layers) == pytest.approx(macs, rel=0.002)
    assert sum(layer.weight_bytes for layer in layers) / 4 == pytest.approx(weights, rel=0.01)


def test_a_small_graph_is_as_worked_out_by_hand() -> None:
    layers = {layer.name: layer for layer in estimate_layers(onnx_graphs.residual_model(), SLOW, "float32")}
    assert list(layers) == ["first", "depthwise", "pointwise", "pool", "gemm"]  # relu, clip, add, flatten go along
    first = layers["first"]
    assert (first.macs, first.weight_bytes) == (8 * 8 * 8 * 4 * 9, 4 * (8 * 4 * 9 + 8))
    assert first.activation_bytes == 4 * (4 * 64 + 8 * 64)
    assert first.arithmetic_ms == pytest.approx(2 * first.macs / 1e9 * 1e3)
    assert first.memory_ms == pytest.approx((first.weight_bytes + first.activation_bytes) / 1e6 * 1e3)
    assert first.latency_ms == first.memory_ms + 1
    assert first.bound == "memory"
    assert layers["depthwise"].macs == 8 * 64 * 9
    assert layers["pointwise"].activation_bytes == 4 * 64 * 8 * 3  # reads its input and the shortcut, writes the sum
    assert (layers["gemm"].macs, layers["pool"].macs) == (40, 0)


def test_the_bound_is_what_takes_longest() -> None:
    wide = replace(SLOW, bandwidth_gb_per_s=1e6)
    assert (
        estimate_layers(onnx_graphs.residual_model(), replace(wide, float32_tflops=1e-6), "float32")[0].bound
        == "arithmetic"
    )
    assert (
        estimate_layers(onnx_graphs.residual_model(), replace(wide, float32_tflops=1e6), "float32")[0].bound == "launch"
    )


def test_twice_the_batch_is_twice_the_work_but_not_twice_the_weights() -> None:
    one, two = (estimate_layers(onnx_graphs.residual_model(), SLOW, "float32", batch) for batch in (1, 2))
    for single, double in zip(one, two, strict=True):
        assert double.macs == 2 * single.macs
        assert double.activation_bytes == 2 * single.activation_bytes
        assert double.weight_bytes == single.weight_bytes


def test_a_quantized_file_is_estimated_as_int8() -> None:
    model, scheme = onnx_graphs.residual_model(), onnx_graphs.unsigned_scheme()
    images = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    quantized = insert_qdq(model, onnx_graphs.ranges_of(model, images, scheme), scheme).model
    layers = {layer.name: layer for layer in estimate_layers(quantized, SLOW, "float32")}
    assumed = {layer.name: layer for layer in estimate_layers(model, SLOW, "int8")}
    assert list(layers) == list(assumed)
    for name in ("first", "depthwise", "pointwise", "gemm"):
        assert (layers[name].precision, layers[name].macs) == ("int8", assumed[name].macs)
        assert layers[name].weight_bytes == assumed[name].weight_bytes
        assert layers[name].arithmetic_ms == pytest.approx(2 * layers[name].macs / 4e9 * 1e3)
    assert layers["depthwise"].activation_bytes == assumed["depthwise"].activation_bytes == 2 * 8 * 64


def test_float16_moves_half_the_bytes() -> None:
    wide, half = (
        estimate_layers(onnx_graphs.residual_model(), SLOW, precision)[1] for precision in ("float32", "float16")
    )
    assert half.activation_bytes == wide.activation_bytes / 2
    assert half.arithmetic_ms == pytest.approx(wide.arithmetic_ms / 2)


def test_unknown_shapes_are_told_with_their_cure() -> None:
    model = onnx_graphs.residual_model()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(InputError, match="cannot be inferred; export with a fixed height and width"):
        estimate_layers(model, SLOW, "float32")


def test_a_product_of_matrices_counts_what_it_sums() -> None:
    weight = np.zeros((8, 5), np.float32)
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["f"]),
             helper.make_node("MatMul", ["f", "w"], ["y"])]  # fmt: skip
    model = onnx_graphs.make_model(nodes, {"w": weight}, channels=8, output_rank=2)
    assert [layer.macs for layer in estimate_layers(model, SLOW, "float32", batch=3)] == [0, 3 * 8 * 5]


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[..., Artifact]:
    def make(format_: str = "onnx") -> Artifact:
        path = tmp_path / "net.onnx"
        path.write_bytes(onnx_graphs.residual_model(3).SerializeToString())
        manifest = Manifest(sha256_file(path), path.stat().st_size, format_, "float32", "x", (None, 3, 8, 8), "y",  # type: ignore[arg-type]
                            Preprocessing(8, 8), tuple("abcde"))  # fmt: skip
        return Artifact(path, manifest)

    return make


def test_an_estimate_says_that_it_is_one(artifact: Callable[..., Artifact]) -> None:
    found = estimate(artifact(), Target("far", batch=2, datasheet=SLOW))
    assert (found.label, found.device, found.batch, found.artifact) == (LABEL, "slow", 2, "net.onnx")
    assert found.latency_ms == sum(layer.latency_ms for layer in found.layers)
    assert sum(found.share(bound) for bound in ("arithmetic", "memory", "launch")) == pytest.approx(1)
    written = json.loads(json.dumps(found.to_json()))
    assert written["label"] == "estimate, not measured"
    assert written["layers"][0]["bound"] == "memory"
    assert written["latency_ms"] == pytest.approx(found.latency_ms)


def test_what_can_not_be_estimated_is_told(artifact: Callable[..., Artifact]) -> None:
    with pytest.raises(InputError, match="target 'far' has no datasheet"):
        estimate(artifact(), Target("far"))
    with pytest.raises(InputError, match="estimates need an ONNX file, this is fake"):
        estimate(artifact("fake"), Target("far", datasheet=SLOW))
    with pytest.raises(InputError, match="no peak for float16"):
        estimate(artifact(), Target("far", datasheet=replace(SLOW, float16_tflops=None)), "float16")
