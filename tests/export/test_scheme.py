"""Tests of schemes: TensorRT builds the file of its scheme with every layer in int8; no GPU is needed to build.

`tensorrt_rtx` stands in for TensorRT, whose libraries are not in a package registry. Both have the same parser and
the same rules for Q/DQ.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_graphs import constants_of, optimized_ops, ranges_of, run_model, sqnr_db

from compress.quantization.schemes import SCHEMES
from export.quantize import Quantized, insert_qdq
from export.scheme import Scheme, summed_exactly
from runtimes.artifact import Artifact, Manifest
from runtimes.engine import Build, build_plan
from runtimes.errors import CompressError
from runtimes.lineage import EngineLayer
from runtimes.preprocessing import Preprocessing

TENSORRT = SCHEMES["tensorrt"]


@pytest.fixture(scope="module")
def rtx() -> Any:
    reason = "tensorrt_rtx, which stands in for TensorRT, is not installed: pip install tensorrt-rtx-cu13"
    return pytest.importorskip("tensorrt_rtx", reason=reason)


def build(model: onnx.ModelProto) -> dict[str, EngineLayer]:
    """Build an engine for SM86, for which no GPU is needed, and return its layers by their names in the file."""
    wanted = Build("tensorrt_rtx", version("tensorrt-rtx-cu13"), "8.6", (1, 4, 8), None)
    return {layer.name: layer for layer in build_plan(model.SerializeToString(), wanted, "int8", None)[1]}


def assert_every_layer_is_int8(layers: dict[str, EngineLayer], quantized: Quantized) -> None:
    operators = {node.name: node.op_type for node in quantized.model.graph.node}
    kinds = {"Conv": "correlation", "Gemm": "gemm"}
    assert layers == {name: EngineLayer(name, kinds[operators[name]], ("Int8",)) for name in quantized.weights}


def assert_symmetric(model: onnx.ModelProto) -> None:
    """All that is quantized is int8 with zero points 0; biases are float."""
    stored = constants_of(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero_point = stored[node.input[2]]
            assert (zero_point.dtype, zero_point.any()) == (np.int8, False), node.name
            assert (stored[node.input[1]] > 0).all()
            assert node.input[0] not in stored or stored[node.input[0]].dtype == np.int8
        if node.op_type in ("Conv", "Gemm"):
            assert len(node.input) < 3 or stored[node.input[2]].dtype == np.float32, node.name


def with_images(model: onnx.ModelProto, scheme: Scheme, channels: int, side: int) -> tuple[np.ndarray, Quantized]:
    images = np.random.default_rng(1).normal(0, 1, (8, channels, side, side)).astype(np.float32)
    return images, insert_qdq(model, ranges_of(model, images, scheme), scheme)


def test_the_file_is_symmetric_with_float_biases_and_answers_like_float32(residual_model: onnx.ModelProto) -> None:
    images, quantized = with_images(residual_model, TENSORRT, 4, 8)
    assert_symmetric(quantized.model)
    assert {weights.integers.dtype for weights in quantized.weights.values()} == {np.dtype(np.int8)}
    assert sqnr_db(run_model(residual_model, images), run_model(quantized.model, images, exact=True)) > 30


def test_pairs_stand_before_layers_and_on_the_shortcut_alone(residual_model: onnx.ModelProto) -> None:
    _, quantized = with_images(residual_model, TENSORRT, 4, 8)
    assert list(quantized.plan.range_of) == ["x", "a1", "a2", "f"]
    read = {node.name: list(node.input) for node in quantized.model.graph.node}
    assert read["relu"] == ["c1"]
    assert read["clip"][0] == "c2"
    assert read["add"] == ["a1_dequantized", "c3"]
    assert read["pool"] == ["s"]
    assert read["gemm"][0] == "f_dequantized"


@pytest.mark.usefixtures("rtx")
def test_the_engine_runs_every_layer_on_int8(residual_model: onnx.ModelProto) -> None:
    _, quantized = with_images(residual_model, TENSORRT, 4, 8)
    assert_every_layer_is_int8(build(quantized.model), quantized)


@pytest.mark.usefixtures("rtx")
def test_a_layer_that_stays_float_shows_in_the_engine(residual_model: onnx.ModelProto) -> None:
    ranges = ranges_of(residual_model, np.ones((1, 4, 8, 8), np.float32), TENSORRT)
    kept = frozenset({"first", "gemm"})
    layers = build(insert_qdq(residual_model, ranges, TENSORRT, float_nodes=kept).model)
    assert layers["first"].inputs == ("Float",)
    assert {name for name, layer in layers.items() if layer.is_int8} == {"depthwise", "pointwise"}


@pytest.mark.usefixtures("rtx")
def test_files_for_onnx_runtime_are_not_built(residual_model: onnx.ModelProto) -> None:
    unsigned, images = SCHEMES["x86-vnni"], np.ones((1, 4, 8, 8), np.float32)
    ranges = ranges_of(residual_model, images, unsigned)
    with pytest.raises(CompressError, match="zero point"):
        build(insert_qdq(residual_model, dict.fromkeys(ranges, (-1.0, 1.0)), unsigned).model)
    positive = dict.fromkeys(ranges, (0.0, 1.0))
    with pytest.raises(CompressError, match="Int32"):
        build(insert_qdq(residual_model, positive, unsigned).model)
    # the dangerous one: uint8 with zero points 0 is read as int8, with only a warning
    with pytest.raises(CompressError, match="UINT8"):
        build(insert_qdq(residual_model, positive, replace(unsigned, int32_bias=False)).model)


@pytest.mark.slow
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_the_engine_of_a_whole_network_runs_every_layer_on_int8(name: str, tmp_path: Path) -> None:
    torch, models = pytest.importorskip("torch"), pytest.importorskip("torchvision.models")
    from export.to_onnx import to_onnx

    torch.manual_seed(0)
    network = getattr(models, name)(weights=None, num_classes=10).train()
    with torch.no_grad():
        network(torch.randn(8, 3, 96, 96))  # statistics for its BatchNorms
    float32 = onnx.load(to_onnx(network, tmp_path / "m.onnx", 96, 18, None).path)
    images, quantized = with_images(float32, TENSORRT, 3, 96)
    assert_symmetric(quantized.model)
    assert sqnr_db(run_model(float32, images), run_model(quantized.model, images, exact=True)) > 15
    adds = [node for node in quantized.model.graph.node if node.op_type == "Add"]
    assert len(adds) == {"mobilenet_v2": 10, "resnet18": 8}[name]
    assert all(sum(given.endswith("_dequantized") for given in node.input) == 1 for node in adds)
    between = [node for node in quantized.model.graph.node if node.op_type in ("Relu", "Clip")]
    assert not any(node.input[0].endswith("_dequantized") for node in between)
    assert_every_layer_is_int8(build(quantized.model), quantized)


def test_the_file_for_arm64_is_the_one_for_vnni_and_runs_in_onnx_runtime(
    residual_model: onnx.ModelProto, tmp_path: Path
) -> None:
    assert replace(SCHEMES["arm64"], name="x86-vnni") == SCHEMES["x86-vnni"]
    images, arm = with_images(residual_model, SCHEMES["arm64"], 4, 8)
    _, vnni = with_images(residual_model, SCHEMES["x86-vnni"], 4, 8)
    assert arm.model.SerializeToString() == vnni.model.SerializeToString()
    assert sqnr_db(run_model(residual_model, images), run_model(arm.model, images, exact=True)) > 30
    assert Counter(optimized_ops(arm.model, tmp_path))["QLinearConv"] == 3


def test_exact_sums_are_a_session_option_besides_the_others() -> None:
    manifest = Manifest(
        "0" * 64, 1, "onnx", "int8", "x", (None, 3, 8, 8), "y", Preprocessing(8, 8), ("a",),
        session_options={"session.other": "2"},
    )  # fmt: skip
    exact = summed_exactly(Artifact(Path("model.onnx"), manifest))
    assert exact.manifest.session_options == {"session.other": "2", "session.x64quantprecision": "1"}
    assert replace(exact.manifest, session_options=manifest.session_options) == manifest
