"""Tests of export.rewrites.hard_activations: unchanged outputs, and only integer kernels in INT8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_graphs import make_model, optimized_ops, ranges_of, run_model, sqnr_db

from compress.quantization.schemes import SCHEMES
from export.quantize import insert_qdq
from export.rewrites.hard_activations import rewrite_hard_activations

IMAGES = np.random.default_rng(1).normal(0, 2, (8, 4, 8, 8)).astype(np.float32)
SCHEME = SCHEMES["x86-vnni"]


def squeeze_excite(shared: bool = False, bias: bool = True) -> onnx.ModelProto:
    """Conv-HardSwish, squeeze-excite with HardSigmoid, Conv-HardSwish, pool, Gemm-HardSigmoid-Mul, as MobileNetV3."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.5, shape).astype(np.float32)

    node = helper.make_node
    gate_bias = ["b3"] if bias else []
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        node("HardSwish", ["c1"], ["a1"], name="s1"),
        node("GlobalAveragePool", ["a1"], ["p1"], name="pool1"),
        node("Conv", ["p1", "w2", "b2"], ["c2"], name="squeeze"), node("Relu", ["c2"], ["r2"], name="relu"),
        node("Conv", ["r2", "w3", *gate_bias], ["c3"], name="excite"),
        node("HardSigmoid", ["c3"], ["g"], name="gate", alpha=1 / 6, beta=0.5),
        node("Mul", ["a1", "g"], ["m"], name="scale"),
        *([node("Add", ["m", "c3"], ["m2"], name="again")] if shared else []),
        node("Conv", ["m2" if shared else "m", "w4", "b4"], ["c4"], name="second"),
        node("HardSwish", ["c4"], ["a4"], name="s4"),
        node("GlobalAveragePool", ["a4"], ["p4"], name="pool4"), node("Flatten", ["p4"], ["f"], name="flatten"),
        node("Gemm", ["f", "w5", "b5"], ["h"], name="hidden", transB=1), node("HardSwish", ["h"], ["a5"], name="s5"),
        node("Gemm", ["a5", "w6", "b6"], ["y"], name="head", transB=1),
    ]  # fmt: skip
    constants = {"w1": weights(8, 4, 3, 3), "b1": weights(8), "w2": weights(4, 8, 1, 1), "b2": weights(4),
                 "w3": weights(8, 4, 1, 1), "w4": weights(8, 8, 1, 1), "b4": weights(8), "w5": weights(6, 8),
                 "b5": weights(6), "w6": weights(3, 6), "b6": weights(3)}  # fmt: skip
    if bias:
        constants["b3"] = weights(8)
    return make_model(nodes, constants, channels=4, output_rank=2)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_answers_stay_the_same(shared: bool, bias: bool) -> None:
    model = squeeze_excite(shared, bias)
    rewritten = rewrite_hard_activations(model)
    assert not {"HardSwish", "HardSigmoid"} & {node.op_type for node in rewritten.graph.node}
    assert sqnr_db(run_model(model, IMAGES), run_model(rewritten, IMAGES)) > 100
    onnx.checker.check_model(rewritten, full_check=True)


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.5), (0.3, 0.1)])
def test_a_gate_without_a_layer_in_front(alpha: float, beta: float) -> None:
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("HardSigmoid", ["x"], ["g"], name="gate", alpha=alpha, beta=beta),
             helper.make_node("Conv", ["g", "w"], ["y"], name="conv")]  # fmt: skip
    model = make_model(nodes, {"w": rng.normal(0, 1, (2, 4, 1, 1)).astype(np.float32)})
    assert sqnr_db(run_model(model, IMAGES), run_model(rewrite_hard_activations(model), IMAGES)) > 100


def test_the_model_given_is_left_alone() -> None:
    model = squeeze_excite()
    before = model.SerializeToString()
    rewrite_hard_activations(model)
    assert model.SerializeToString() == before


def test_int8_runs_without_a_float_operator_in_its_middle(tmp_path: Path) -> None:
    model = rewrite_hard_activations(squeeze_excite())
    quantized = insert_qdq(model, ranges_of(model, IMAGES, SCHEME), SCHEME).model
    ops = optimized_ops(quantized, tmp_path)
    assert not {"HardSwish", "HardSigmoid", "Mul", "Add", "Clip", "Relu", "Conv"} & set(ops)
    assert {"QLinearConv", "QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool", "QGemm"} <= set(ops)
    inner = ops[ops.index("QLinearConv") : len(ops) - ops[::-1].index("QGemm")]
    assert "DequantizeLinear" not in inner


def test_int8_answers_are_near_float32() -> None:
    model = rewrite_hard_activations(squeeze_excite())
    quantized = insert_qdq(model, ranges_of(model, IMAGES, SCHEME), SCHEME).model
    assert sqnr_db(run_model(model, IMAGES), run_model(quantized, IMAGES, wide_sums=True)) > 25


def test_a_network_without_hard_activations_is_the_same() -> None:
    from onnx_graphs import residual_model

    model = residual_model(channels=3)
    assert [node.name for node in rewrite_hard_activations(model).graph.node] == [
        node.name for node in model.graph.node
    ]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_in_front_takes_alpha_and_beta(transposed: int, bias: bool) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (5, 4) if transposed else (4, 5)).astype(np.float32)
    constants = {"w": weight} | ({"b": rng.normal(0, 1, 5).astype(np.float32)} if bias else {})
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", *constants], ["h"], name="gemm", transB=transposed),
        helper.make_node("HardSigmoid", ["h"], ["y"], name="gate"),  # alpha 0.2, beta 0.5
    ]
    model = make_model(nodes, constants, output_rank=2)
    rewritten = rewrite_hard_activations(model)
    assert [node.op_type for node in rewritten.graph.node][-2:] == ["Gemm", "Clip"]
    expected = run_model(model, IMAGES)
    assert sqnr_db(expected, run_model(rewritten, IMAGES)) > 100
    np.testing.assert_allclose(expected, np.clip(
        0.2 * (IMAGES.mean((2, 3)) @ (weight.T if transposed else weight) + constants.get("b", 0)) + 0.5, 0, 1
    ), atol=1e-5)  # fmt: skip


def test_weights_that_two_layers_share_are_scaled_for_one() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (4, 4, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="one"),
        helper.make_node("HardSigmoid", ["c"], ["g"], name="g"),
        helper.make_node("Conv", ["g", "w"], ["y"], name="two"),
    ]  # fmt: skip
    model = make_model(nodes, {"w": weight})
    assert sqnr_db(run_model(model, IMAGES), run_model(rewrite_hard_activations(model), IMAGES)) > 100


def test_a_layer_whose_output_the_graph_gives_out_keeps_it() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (4, 4, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
             helper.make_node("HardSigmoid", ["y"], ["g"], name="gate")]  # fmt: skip
    model = make_model(nodes, {"w": weight})
    np.testing.assert_array_equal(run_model(model, IMAGES), run_model(rewrite_hard_activations(model), IMAGES))


@pytest.mark.parametrize("other", [np.full((), 7, np.float32), np.full((1, 4, 1, 1), 0.5, np.float32)])
def test_a_constant_of_the_model_that_is_named_like_ours_is_not_taken_for_it(other: np.ndarray) -> None:
    nodes = [helper.make_node("HardSwish", ["x"], ["s"], name="swish"),
             helper.make_node("Add", ["s", "constant_0.5"], ["y"], name="add")]  # fmt: skip
    model = make_model(nodes, {"constant_0.5": other})
    rewritten = rewrite_hard_activations(model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert sqnr_db(run_model(model, IMAGES), run_model(rewritten, IMAGES)) > 100
