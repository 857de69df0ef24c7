"""Tests of export.quantize against NumPy, against float32, and for ONNX Runtime's choice of kernels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx_graphs import (
    constants_of,
    make_model,
    optimized_ops,
    ranges_of,
    run_model,
    signed_scheme,
    sqnr_db,
    unsigned_scheme,
)

from export.layers import IntegerWeights, layers_of, nearest
from export.plan import plan_quantization
from export.quantize import activation_scale, insert_qdq, replace_weights
from export.scheme import Scheme
from runtimes.errors import CompressError, InputError

EXACT, UNKNOWN, NEIGHBOURS = unsigned_scheme("exact"), unsigned_scheme("unknown"), unsigned_scheme("neighbours")
SIGNED = signed_scheme()
ALL_SCHEMES = pytest.mark.parametrize("scheme", [EXACT, UNKNOWN, NEIGHBOURS, SIGNED], ids=lambda scheme: scheme.name)


def images(count: int = 16, channels: int = 4, side: int = 8) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, channels, side, side)).astype(np.float32)


@ALL_SCHEMES
def test_the_quantized_residual_network_answers_like_float32(residual_model: onnx.ModelProto, scheme: Scheme) -> None:
    given_images = images()
    quantized = insert_qdq(residual_model, ranges_of(residual_model, given_images, scheme), scheme).model
    expected, answered = run_model(residual_model, given_images), run_model(quantized, given_images, exact=True)
    assert sqnr_db(expected, answered) > 30


def test_every_weighted_layer_runs_in_an_integer_kernel(residual_model: onnx.ModelProto, tmp_path: Path) -> None:
    quantized = insert_qdq(residual_model, ranges_of(residual_model, images(), EXACT), EXACT).model
    ops = Counter(optimized_ops(quantized, tmp_path))
    assert ops["QLinearConv"] == 3
    assert ops["QGemm"] == 1
    assert ops["QLinearAdd"] == 1
    assert ops["QLinearGlobalAveragePool"] == 1
    assert not {"Conv", "FusedConv", "Gemm", "Add", "Relu", "Clip"} & set(ops)


def test_clamps_after_integer_operators_are_done_by_the_quantizer(residual_model: onnx.ModelProto) -> None:
    quantized = insert_qdq(residual_model, ranges_of(residual_model, images(), EXACT), EXACT)
    assert not {"Relu", "Clip"} & {node.op_type for node in quantized.model.graph.node}
    assert constants_of(quantized.model)["a2_zero_point"] == 0
    assert quantized.float_ops == {}


def test_a_single_convolution_equals_the_integer_arithmetic_of_the_paper() -> None:
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(0, 1, (3, 4, 1, 1)).astype(np.float32), rng.normal(0, 1, 3).astype(np.float32)
    model = make_model(
        [helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
         helper.make_node("Relu", ["c"], ["r"], name="r"),
         helper.make_node("GlobalAveragePool", ["r"], ["y"], name="pool")],
        {"w": weight, "b": bias}, side=1,
    )  # fmt: skip
    given_images = images(64, side=1)
    ranges = ranges_of(model, given_images, EXACT)
    quantized = insert_qdq(model, ranges, EXACT).model
    stored = constants_of(quantized)

    x_scale, x_zero = activation_scale(*ranges["x"], False)
    y_scale, _ = activation_scale(*ranges["r"], False)
    w_scale = np.abs(weight.reshape(3, 4).astype(np.float64)).max(1) / 127
    x_int = np.clip(np.rint(given_images[..., 0, 0] / np.float32(x_scale)) + x_zero, 0, 255).astype(np.int64)
    w_int = np.rint(weight.reshape(3, 4) / w_scale[:, None]).astype(np.int64)
    b_int = np.rint(bias / (w_scale * x_scale)).astype(np.int64)
    accumulated = (x_int - x_zero) @ w_int.T + b_int
    y_int = np.clip(np.rint(accumulated * (w_scale * x_scale) / y_scale), 0, 255)

    np.testing.assert_array_equal(stored["conv_weight_quantized"].reshape(3, 4), w_int)
    np.testing.assert_array_equal(stored["conv_bias_quantized"], b_int)
    difference = np.abs(run_model(quantized, given_images)[..., 0, 0] - y_int * y_scale)
    assert difference.max() <= 1.01 * y_scale  # one step where a tie is rounded the other way
    assert np.mean(difference < 1e-5) > 0.98


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_activation_parameters_hold_zero_exactly_and_both_ends_within_a_step(low: float, width: float) -> None:
    high = low + width
    scale, zero_point = activation_scale(low, high, False)
    assert scale > 0
    assert 0 <= zero_point <= 255
    assert (0 - zero_point) * scale <= min(low, 0) + scale
    assert (255 - zero_point) * scale >= max(high, 0) - scale


def test_pixels_between_minus_one_and_one_are_no_rounding_ties() -> None:
    scale, zero_point = activation_scale(-1.0, 1.0, False)
    pixels = (np.arange(256) / 127.5 - 1).astype(np.float32)
    position = pixels / np.float32(scale) + zero_point
    assert (zero_point, round(2 / scale)) == (127, 254)
    assert np.mean(np.abs(position % 1 - 0.5) < 0.01) < 0.05


def saturating_kernel(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Emulate vpmaddubsw: products of neighbours are added in int16 with saturation, then summed in int32."""
    products = activations.astype(np.int64) * weights.astype(np.int64)
    pairs = products[..., 0::2] + products[..., 1::2]
    return pairs.clip(-32768, 32767).sum(-1)


@pytest.mark.parametrize(("scheme", "overflows"), [(UNKNOWN, False), (NEIGHBOURS, False), (EXACT, True)])
def test_only_the_scheme_for_exact_sums_has_weights_that_saturating_kernels_overflow(
    scheme: Scheme, overflows: bool
) -> None:
    weight = np.ones((2, 4, 1, 1), np.float32)
    model = make_model(
        [helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
         helper.make_node("GlobalAveragePool", ["c"], ["y"], name="pool")], {"w": weight},
    )  # fmt: skip
    quantized = insert_qdq(model, {"x": (0, 1), "c": (0, 4), "y": (0, 4)}, scheme)
    integers = constants_of(quantized.model)["conv_weight_quantized"].reshape(2, 4)
    worst = np.full(4, 255, np.uint8)
    true_sum = (worst.astype(np.int64) * integers).sum(-1)
    assert np.array_equal(saturating_kernel(worst, integers), true_sum) is not overflows


def test_depthwise_layers_keep_eight_bits_where_neighbours_are_summed(residual_model: onnx.ModelProto) -> None:
    largest = {
        scheme.name: {name: int(np.abs(weights.integers.astype(int)).max())
                      for name, weights in insert_qdq(residual_model, ranges, scheme).weights.items()}
        for scheme in (EXACT, UNKNOWN, NEIGHBOURS) for ranges in [ranges_of(residual_model, images(), scheme)]
    }  # fmt: skip
    names = ["first", "depthwise", "pointwise", "gemm"]
    assert largest["exact"] == dict.fromkeys(names, 127)
    assert largest["unknown"] == dict.fromkeys(names, 64)
    assert largest["neighbours"]["depthwise"] == 127
    assert all(largest["neighbours"][name] > 64 for name in names)  # a large weight beside a small one keeps its bits


def test_a_signed_scheme_has_zero_points_of_zero_and_float_biases(residual_model: onnx.ModelProto) -> None:
    quantized = insert_qdq(residual_model, ranges_of(residual_model, images(), SIGNED), SIGNED)
    stored = constants_of(quantized.model)
    zero_points = {name: value for name, value in stored.items() if name.endswith("zero_point")}
    assert zero_points
    assert all(value.dtype == np.int8 and not value.any() for value in zero_points.values())
    assert {node.input[2] for node in quantized.model.graph.node if node.op_type in ("Conv", "Gemm")} <= set(stored)
    biases = [stored[node.input[2]] for node in quantized.model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {bias.dtype for bias in biases} == {np.dtype(np.float32)}
    assert {"Relu", "Clip"} <= {node.op_type for node in quantized.model.graph.node}
    assert quantized.float_ops == {"Relu": 1, "Clip": 1, "Add": 1, "GlobalAveragePool": 1}


def test_constants_named_like_ours_do_not_become_ours() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(0, 1, (4, 4, 1, 1)).astype(np.float32) for _ in range(2))
    bias = rng.normal(0, 1, 4).astype(np.float32)
    model = make_model(
        [helper.make_node("Conv", ["x", "conv_weight", "conv_bias"], ["c"], name="conv"),
         helper.make_node("Conv", ["c", "other", "conv_bias"], ["y"], name="other")],
        {"conv_weight": first, "conv_bias": bias, "other": second},
    )  # fmt: skip
    for scheme in (EXACT, SIGNED):
        quantized = insert_qdq(model, ranges_of(model, images(), scheme), scheme).model
        names = [tensor.name for tensor in quantized.graph.initializer]
        assert len(names) == len(set(names))
        assert sqnr_db(run_model(model, images()), run_model(quantized, images(), wide_sums=True)) > 30


def test_a_name_that_is_taken_is_an_error_that_names_it(residual_model: onnx.ModelProto) -> None:
    residual_model.graph.initializer.append(numpy_helper.from_array(np.zeros(5, np.float32), "a1_scale"))
    residual_model.graph.node[-1].input[2] = "a1_scale"
    with pytest.raises(InputError, match="a1_scale"):
        insert_qdq(residual_model, ranges_of(residual_model, images(), EXACT), EXACT, float_nodes=frozenset({"gemm"}))


@ALL_SCHEMES
def test_weights_that_were_rounded_already_are_written_as_they_are(
    residual_model: onnx.ModelProto, scheme: Scheme
) -> None:
    layer, ranges = layers_of(residual_model)["pointwise"], ranges_of(residual_model, images(), scheme)
    given_weights = IntegerWeights(np.full((8, 8, 1, 1), 3, np.int8), np.full(8, 0.5), np.arange(8.0))
    quantized = insert_qdq(residual_model, ranges, scheme, {"pointwise": given_weights})
    stored, nearest_ones = constants_of(quantized.model), insert_qdq(residual_model, ranges, scheme).weights
    np.testing.assert_array_equal(stored["pointwise_weight_quantized"], given_weights.integers)
    np.testing.assert_array_equal(stored["pointwise_weight_scale"], given_weights.scale)
    assert quantized.weights["pointwise"] is given_weights
    np.testing.assert_array_equal(quantized.weights["gemm"].integers, nearest_ones["gemm"].integers)
    if scheme.int32_bias:
        bias_scale = 0.5 * quantized.scales[layer.input][0]
        np.testing.assert_array_equal(stored["pointwise_bias_quantized"], np.rint(np.arange(8) / bias_scale))
    else:
        np.testing.assert_array_equal(stored["pointwise_bias_float"], np.arange(8))


def test_a_bias_that_rounding_adds_to_a_layer_without_one_is_written() -> None:
    model = make_model([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
                       {"w": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)})  # fmt: skip
    layer = layers_of(model)["conv"]
    for scheme in (EXACT, SIGNED):
        ranges = ranges_of(model, images(), scheme)
        scale = insert_qdq(model, ranges, scheme).scales["x"][0]
        plain = nearest(layer, scheme.sums, scale)
        moved = IntegerWeights(plain.integers, plain.scale, np.asarray([0.0, 1.0, 2.0, 3.0]))
        made = insert_qdq(model, ranges, scheme, {"conv": moved}).model
        shift = run_model(made, images()) - run_model(insert_qdq(model, ranges, scheme).model, images())
        np.testing.assert_allclose(shift.mean((0, 2, 3)), [0, 1, 2, 3], atol=1e-4)


@ALL_SCHEMES
@pytest.mark.parametrize("name", ["first", "depthwise", "pointwise", "gemm"])
def test_replaced_weights_are_those_that_would_have_been_inserted(
    residual_model: onnx.ModelProto, scheme: Scheme, name: str
) -> None:
    layer, ranges = layers_of(residual_model)[name], ranges_of(residual_model, images(), scheme)
    plain = insert_qdq(residual_model, ranges, scheme)
    halved = plain.weights[name].integers // 2
    other = IntegerWeights(halved.astype(np.int8), plain.weights[name].scale * 2, plain.weights[name].bias + 0.25)
    expected = insert_qdq(residual_model, ranges, scheme, {name: other})
    replace_weights(plain, layer, other, scheme.int32_bias)
    assert plain.model.SerializeToString() == expected.model.SerializeToString()
    assert plain.weights[name] is other


def test_operators_that_shall_stay_float_stay_float(residual_model: onnx.ModelProto) -> None:
    for scheme in (EXACT, SIGNED):
        ranges = ranges_of(residual_model, images(), scheme)
        quantized = insert_qdq(residual_model, ranges, scheme, float_nodes=frozenset({"pointwise", "gemm"}))
        assert set(quantized.weights) == {"first", "depthwise"}
        assert (quantized.float_ops["Conv"], quantized.float_ops["Gemm"]) == (1, 1)
        kept = {node.name: list(node.input) for node in quantized.model.graph.node}
        assert kept["pointwise"][1] == "w3"
        answered = run_model(quantized.model, images(), exact=True)
        assert sqnr_db(run_model(residual_model, images()), answered) > 30


@pytest.mark.parametrize("name", ["first", "depthwise", "pointwise", "gemm"])
@pytest.mark.parametrize("bias", [True, False])
def test_onnx_runtime_does_not_quantize_what_shall_stay_float(
    residual_model: onnx.ModelProto, name: str, bias: bool, tmp_path: Path
) -> None:
    """It gives float layers between Q/DQ int8 weights of its own, with one scale for all channels."""
    node = next(node for node in residual_model.graph.node if node.name == name)
    if not bias:
        del node.input[2:]
    ranges, given_images = ranges_of(residual_model, images(), EXACT), images()
    quantized = insert_qdq(residual_model, ranges, EXACT, float_nodes=frozenset({name})).model
    ops = Counter(optimized_ops(quantized, tmp_path))
    assert (ops["QLinearConv"], ops["QGemm"]) == ((3, 0) if name == "gemm" else (2, 1))
    answered = run_model(quantized, given_images, wide_sums=True)
    exact = run_model(quantized, given_images, exact=True)
    assert sqnr_db(exact, answered) > 40


def test_a_graph_whose_pairs_are_not_the_planned_ones_is_never_given_out(
    residual_model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = ranges_of(residual_model, images(), EXACT)
    right = plan_quantization(residual_model, EXACT)
    wrong = replace(right, range_of={**right.range_of, "ghost": "x"})
    monkeypatch.setattr("export.quantize.plan_quantization", lambda *_: wrong)
    with pytest.raises(CompressError, match="planned 8 pairs of Q and DQ, the graph has 7 and 7"):
        insert_qdq(residual_model, ranges, EXACT)


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_a_signed_scale_holds_both_ends_within_half_a_step(low: float, width: float) -> None:
    scale, zero_point = activation_scale(low, low + width, True)
    assert (scale > 0, zero_point) == (True, 0)
    if scale != 1.0:
        assert max(-low, low + width) / scale <= 127.5


def test_multiplied_numbers_are_another_scale_for_the_same_integers() -> None:
    node = helper.make_node
    model = make_model(
        [node("Conv", ["x", "w"], ["c"], name="c1"), node("Mul", ["c", "sixth"], ["m"], name="mul"),
         node("Add", ["m", "half"], ["a"], name="add"), node("Clip", ["a", "zero", "one"], ["g"], name="clip"),
         node("Mul", ["c", "g"], ["h"], name="swish"), node("Conv", ["h", "w"], ["y"], name="c2")],
        {"w": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1), "sixth": np.asarray(1 / 6, np.float32),
         "half": np.asarray(0.5, np.float32), "zero": np.asarray(0, np.float32), "one": np.asarray(1, np.float32)},
    )  # fmt: skip
    given_images = images() * 3
    quantized = insert_qdq(model, ranges_of(model, given_images, EXACT), EXACT)
    stored = constants_of(quantized.model)
    assert quantized.plan.rescaled == {"m": ("c", pytest.approx(1 / 6))}
    assert stored["m_scale"] == pytest.approx(stored["c_scale"] / 6)
    assert quantized.float_ops == {}
    assert sqnr_db(run_model(model, given_images), run_model(quantized.model, given_images)) > 30


def test_activation_scales_are_scalars_and_weights_have_one_scale_per_output(residual_model: onnx.ModelProto) -> None:
    stored = constants_of(insert_qdq(residual_model, ranges_of(residual_model, images(), EXACT), EXACT).model)
    assert stored["x_scale"].shape == ()
    assert stored["a1_zero_point"].dtype == np.uint8
    assert stored["first_weight_scale"].shape == (8,)
    assert stored["gemm_weight_scale"].shape == (5,)
    assert stored["gemm_bias_quantized"].dtype == np.int32


def test_a_gemm_without_transposed_weight_is_quantized_along_its_outputs() -> None:
    weight = np.random.default_rng(0).normal(0, [[1], [10], [1], [1]], (4, 3)).astype(np.float32)
    model = make_model(
        [helper.make_node("GlobalAveragePool", ["x"], ["p"], name="p"),
         helper.make_node("Flatten", ["p"], ["f"], name="f"),
         helper.make_node("Gemm", ["f", "w"], ["y"], name="gemm")], {"w": weight}, output_rank=2,
    )  # fmt: skip
    given_images = images()
    quantized = insert_qdq(model, ranges_of(model, given_images, EXACT), EXACT).model
    assert constants_of(quantized)["gemm_weight_scale"].shape == (3,)
    np.testing.assert_allclose(run_model(quantized, given_images), run_model(model, given_images), atol=0.15)


def test_value_moving_operators_share_the_range_of_their_input(residual_model: onnx.ModelProto) -> None:
    assert "f" not in plan_quantization(residual_model, EXACT).ranged
    stored = constants_of(insert_qdq(residual_model, ranges_of(residual_model, images(), EXACT), EXACT).model)
    assert stored["f_scale"] == stored["p_scale"]


@pytest.mark.parametrize("lower", [-1.0, 0.5])
def test_a_clip_that_does_not_begin_at_zero_stays(lower: float) -> None:
    node = helper.make_node
    bounds = {"low": np.asarray(lower, np.float32), "high": np.asarray(2, np.float32)}
    model = make_model(
        [node("Conv", ["x", "w"], ["c"], name="c1"), node("Clip", ["c", "low", "high"], ["k"], name="clip"),
         node("Conv", ["k", "w"], ["y"], name="c2")],
        {"w": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1), **bounds},
    )  # fmt: skip
    given_images = images()
    quantized = insert_qdq(model, ranges_of(model, given_images, EXACT), EXACT)
    assert quantized.float_ops == {"Clip": 1}
    np.testing.assert_allclose(run_model(quantized.model, given_images), run_model(model, given_images), atol=0.06)


def test_a_relu_whose_input_is_read_elsewhere_stays() -> None:
    node = helper.make_node
    model = make_model(
        [node("Conv", ["x", "w"], ["c"], name="c1"), node("Relu", ["c"], ["r"], name="relu"),
         node("Add", ["c", "r"], ["y"], name="add")],
        {"w": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)},
    )  # fmt: skip
    given_images = images()
    quantized = insert_qdq(model, ranges_of(model, given_images, EXACT), EXACT)
    assert quantized.float_ops == {"Relu": 1, "Add": 1}  # an operator before the output has no integers to write
    np.testing.assert_allclose(run_model(quantized.model, given_images), run_model(model, given_images), atol=0.1)


def test_a_dead_channel_with_a_bias_gives_its_bias() -> None:
    weight = np.zeros((2, 4, 1, 1), np.float32)
    weight[1] = 1e-30
    bias = np.asarray([1.5, -2.5], np.float32)
    model = make_model(
        [helper.make_node("Conv", ["x", "w", "b"], ["c"], name="c"),
         helper.make_node("GlobalAveragePool", ["c"], ["y"], name="p")], {"w": weight, "b": bias},
    )  # fmt: skip
    given_images = images()
    answered = run_model(insert_qdq(model, ranges_of(model, given_images, EXACT), EXACT).model, given_images)
    np.testing.assert_allclose(answered[:, :, 0, 0], np.tile(bias, (16, 1)), atol=0.02)


def test_a_quantized_model_is_refused(residual_model: onnx.ModelProto) -> None:
    quantized = insert_qdq(residual_model, ranges_of(residual_model, images(), EXACT), EXACT).model
    with pytest.raises(InputError, match="already quantized; give the float32 model"):
        plan_quantization(quantized, EXACT)


def test_a_model_without_weights_is_refused() -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"], name="r")], {})
    with pytest.raises(InputError, match="nothing to quantize"):
        plan_quantization(model, EXACT)


def test_a_gemm_with_alpha_stays_float() -> None:
    node = helper.make_node
    model = make_model(
        [node("Flatten", ["x"], ["f"], name="f"), node("Gemm", ["f", "w"], ["h"], name="odd", alpha=2.0),
         node("Gemm", ["h", "v"], ["y"], name="even")],
        {"w": np.ones((256, 2), np.float32), "v": np.ones((2, 3), np.float32)}, output_rank=2,
    )  # fmt: skip
    plan = insert_qdq(model, {"x": (-1, 1), "h": (-1, 1)}, EXACT).plan
    assert (plan.integer_nodes, list(plan.range_of)) == ({"even"}, ["h"])
