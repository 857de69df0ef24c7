"""Schemes of targets, and integer kernels for their operators."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import helper

from compress.quantization import schemes
from compress.quantization.schemes import ORT_OPERATORS, SCHEMES, SchemeName, scheme_named
from export.quantize import insert_qdq
from runtimes.environment import InstructionSet
from runtimes.errors import InputError


def test_every_instruction_set_has_a_scheme() -> None:
    assert set(get_args(InstructionSet)) <= set(SCHEMES)
    assert set(get_args(SchemeName)) == set(SCHEMES)
    assert all(scheme.name == name for name, scheme in SCHEMES.items())


def test_only_schemes_with_exact_kernels_have_unlimited_weights() -> None:
    assert {name: scheme.sums for name, scheme in SCHEMES.items()} == {
        "x86-avx2": "neighbours", "x86-vnni": "exact", "arm64": "exact", "tensorrt": "exact", "generic": "unknown"
    }  # fmt: skip
    assert [name for name, scheme in SCHEMES.items() if scheme.signed or not scheme.int32_bias] == ["tensorrt"]


@pytest.mark.parametrize("name", get_args(InstructionSet))
def test_auto_is_this_machines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes.environment, "detect_instruction_set", lambda: name)
    assert scheme_named("auto") is SCHEMES[name]


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    for name in SCHEMES:
        assert scheme_named(name) is SCHEMES[name]
    with pytest.raises(InputError) as refused:
        scheme_named("cuda")
    assert all(name in str(refused.value) for name in ("auto", "'cuda'", *SCHEMES))


def one_operator(kind: str) -> onnx.ModelProto:
    """Return a convolution, the operator, and a convolution."""
    rng = np.random.default_rng(0)
    pooled = kind == "AveragePool"
    inputs = ["c", "x"] if kind in ("Add", "Mul", "Concat") else ["c"]
    attributes = {"axis": 1} if kind == "Concat" else {"kernel_shape": [2, 2]} if pooled else {}
    channels = 8 if kind == "Concat" else 4
    constants = {"w1": rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32),
                 "w2": rng.normal(0, 1, (4, channels, 1, 1)).astype(np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="one"),
        helper.make_node(kind, inputs, ["o"], name="operator", **attributes),
        helper.make_node("Conv", ["o", "w2"], ["y"], name="two"),
    ]
    return onnx_graphs.make_model(nodes, constants)


@pytest.mark.parametrize("kind", sorted(ORT_OPERATORS))
def test_onnx_runtime_has_an_integer_kernel_for_each_operator(kind: str, tmp_path: Path) -> None:
    model, scheme = one_operator(kind), SCHEMES["x86-vnni"]
    images = np.random.default_rng(1).normal(0, 1, (4, 4, 8, 8)).astype(np.float32)
    quantized = insert_qdq(model, onnx_graphs.ranges_of(model, images, scheme), scheme).model
    ran = onnx_graphs.optimized_ops(quantized, tmp_path)
    assert f"QLinear{kind}" in ran
    assert kind not in ran
    answers = onnx_graphs.run_model(quantized, images, wide_sums=True)
    assert onnx_graphs.sqnr_db(onnx_graphs.run_model(model, images), answers) > 25
