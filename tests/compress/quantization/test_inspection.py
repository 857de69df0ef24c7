"""Executed operators, from ONNX Runtime's profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import helper

from compress.quantization.inspection import executed_operators
from compress.quantization.schemes import SCHEMES
from export.layers import layers_of
from export.plan import plan_quantization
from export.quantize import insert_qdq
from runtimes.artifact import Artifact, Manifest
from runtimes.files import sha256_file
from runtimes.lineage import RuntimeNode
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

TARGET = Target("here")


def artifact(model: onnx.ModelProto, path: Path, channels: int = 3) -> Artifact:
    path.write_bytes(model.SerializeToString())
    manifest = Manifest(
        sha256_file(path), path.stat().st_size, "onnx", "float32", "x", (None, channels, 8, 8), "y",
        Preprocessing(8, 8), ("a",),
    )  # fmt: skip
    return Artifact(path, manifest)


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    scheme = SCHEMES["x86-vnni"]
    names = plan_quantization(model, scheme).ranged
    return insert_qdq(model, dict.fromkeys(names, (-4.0, 4.0)), scheme).model


def inner_conversions(nodes: tuple[RuntimeNode, ...]) -> tuple[RuntimeNode, ...]:
    """Return the Q and DQ between the first and the last operator that computes."""
    computing = [index for index, node in enumerate(nodes) if node.kind != "conversion"]
    inner = nodes[computing[0] : computing[-1] + 1] if computing else ()
    return tuple(node for node in inner if node.op in ("QuantizeLinear", "DequantizeLinear"))


def test_every_layer_of_a_quantized_network_runs_in_an_integer_kernel(tmp_path: Path) -> None:
    model = onnx_graphs.residual_model(channels=3)
    nodes = executed_operators(artifact(quantized(model), tmp_path / "m.onnx"), TARGET, runs=3)
    integer = [node for node in nodes if node.layer]
    assert sorted(node.layer or "" for node in integer) == sorted(layers_of(model))
    assert {node.kind for node in integer} == {"integer"}
    assert not inner_conversions(nodes)
    assert all(node.time_ms > 0 for node in integer)


def test_a_float_network_has_no_integer_kernel_and_every_layer_is_listed(tmp_path: Path) -> None:
    model = onnx_graphs.residual_model(channels=3)
    nodes = executed_operators(artifact(model, tmp_path / "m.onnx"), TARGET, runs=3)
    assert {node.kind for node in nodes} <= {"float", "conversion"}
    assert sorted(node.layer or "" for node in nodes if node.layer) == sorted(layers_of(model))


def test_an_operator_without_integer_kernel_runs_in_float_between_conversions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.4, (8, size, 3, 3)).astype(np.float32) for name, size in (("w1", 3), ("w2", 8))}
    node = helper.make_node
    model = onnx_graphs.make_model(
        [node("Conv", ["x", "w1"], ["c1"], name="first", pads=[1] * 4), node("Tanh", ["c1"], ["t"], name="tanh"),
         node("Conv", ["t", "w2"], ["y"], name="second", pads=[1] * 4)],
        weights, channels=3,
    )  # fmt: skip
    nodes = executed_operators(artifact(quantized(model), tmp_path / "m.onnx"), TARGET, runs=3)
    kinds = {node.op: node.kind for node in nodes}
    assert kinds["Tanh"] == "float"
    assert [node.op for node in inner_conversions(nodes)][:2] == ["DequantizeLinear", "QuantizeLinear"]


def test_conversions_at_both_ends_are_not_inner_ones() -> None:
    def line(op: str, kind: str) -> RuntimeNode:
        return RuntimeNode(op, op, kind, None, 0.1)  # type: ignore[arg-type]

    ends = (
        line("QuantizeLinear", "conversion"),
        line("QLinearConv", "integer"),
        line("DequantizeLinear", "conversion"),
    )
    assert inner_conversions(ends) == ()
    assert inner_conversions((*ends, *ends)) == (ends[2], ends[0])
    assert inner_conversions(ends[:1]) == ()


@pytest.mark.parametrize("runs", [1, 4])
def test_times_exclude_the_warm_up(tmp_path: Path, runs: int) -> None:
    nodes = executed_operators(artifact(onnx_graphs.residual_model(channels=3), tmp_path / "m.onnx"), TARGET, runs=runs)
    assert 0 < sum(node.time_ms for node in nodes) < 1000
