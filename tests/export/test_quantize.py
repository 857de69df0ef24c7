"""Q/DQ graphs: against NumPy, against float32, and in the kernels that ONNX Runtime picks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper, numpy_helper
from onnx_graphs import make_model, optimized_ops, run_model, tensor_values

from export.quantize import Scheme, _activation_parameters, insert_qdq, tensors_to_calibrate, weight_scales
from runtimes.errors import InputError

EXACT = Scheme("exact", saturating_weight_max=127)
SEVEN_BITS = Scheme("seven", saturating_weight_max=64)


def ranges_of(model: onnx.ModelProto, images: np.ndarray) -> dict[str, tuple[float, float]]:
    names = [name for name in tensors_to_calibrate(model) if name != "x"]
    values = {"x": images, **{name: tensor_values(model, name, images) for name in names}}
    return {name: (float(value.min()), float(value.max())) for name, value in values.items()}


def images(count: int = 16, channels: int = 4, side: int = 8) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, channels, side, side)).astype(np.float32)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_quantized_residual_network_answers_like_float32(residual_model: onnx.ModelProto) -> None:
    given_images = images()
    quantized = insert_qdq(residual_model, ranges_of(residual_model, given_images), EXACT).model
    expected, answered = run_model(residual_model, given_images), run_model(quantized, given_images)
    noise = 10 * np.log10(np.sum(expected**2) / np.sum((expected - answered) ** 2))
    assert noise > 30


def test_every_weighted_layer_runs_in_an_integer_kernel(residual_model: onnx.ModelProto, tmp_path: Path) -> None:
    quantized = insert_qdq(residual_model, ranges_of(residual_model, images()), EXACT).model
    ops = Counter(optimized_ops(quantized, tmp_path))
    assert ops["QLinearConv"] == 3
    assert ops["QGemm"] == 1
    assert ops["QLinearAdd"] == 1
    assert ops["QLinearGlobalAveragePool"] == 1
    assert not {"Conv", "FusedConv", "Gemm", "Add", "Relu", "Clip"} & set(ops)


def test_clamps_after_integer_operators_are_done_by_the_quantizer(residual_model: onnx.ModelProto) -> None:
    quantized = insert_qdq(residual_model, ranges_of(residual_model, images()), EXACT)
    assert not {"Relu", "Clip"} & {node.op_type for node in quantized.model.graph.node}
    assert constants(quantized.model)["a2_zero_point"] == 0
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
    ranges = ranges_of(model, given_images)
    quantized = insert_qdq(model, ranges, EXACT).model
    stored = constants(quantized)

    x_scale, x_zero = _activation_parameters(*ranges["x"])
    y_scale, _ = _activation_parameters(*ranges["r"])
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


@given(
    arrays(np.float64, (3, 2, 2), elements=st.floats(-1e3, 1e3, width=32)),
    arrays(np.float64, 3, elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(1e-6, 10),
    st.sampled_from([64, 127]),
)
def test_weights_keep_within_half_a_step_and_biases_fit_int32(
    weight: np.ndarray, bias: np.ndarray, input_scale: float, largest: int
) -> None:
    scale = weight_scales(weight, 0, largest, bias, input_scale)
    integers = np.rint(weight / scale[:, None, None])
    assert (scale > 0).all()
    assert np.abs(integers).max() <= largest
    assert (np.abs(integers * scale[:, None, None] - weight) <= 0.5001 * scale[:, None, None]).all()
    assert (np.abs(np.rint(bias / (scale * input_scale))) <= 2.0**31 - 1).all()


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_activation_parameters_hold_zero_exactly_and_both_ends_within_a_step(low: float, width: float) -> None:
    high = low + width
    scale, zero_point = _activation_parameters(low, high)
    assert scale > 0
    assert 0 <= zero_point <= 255
    assert (0 - zero_point) * scale <= min(low, 0) + scale
    assert (255 - zero_point) * scale >= max(high, 0) - scale


def test_pixels_between_minus_one_and_one_are_no_rounding_ties() -> None:
    scale, zero_point = _activation_parameters(-1.0, 1.0)
    pixels = (np.arange(256) / 127.5 - 1).astype(np.float32)
    position = pixels / np.float32(scale) + zero_point
    assert (zero_point, round(2 / scale)) == (127, 254)
    assert np.mean(np.abs(position % 1 - 0.5) < 0.01) < 0.05


def saturating_kernel(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Emulate vpmaddubsw: products of neighbours are added in int16 with saturation, then summed in int32."""
    products = activations.astype(np.int64) * weights.astype(np.int64)
    pairs = products[..., 0::2] + products[..., 1::2]
    return pairs.clip(-32768, 32767).sum(-1)


@pytest.mark.parametrize(("scheme", "exact"), [(SEVEN_BITS, True), (EXACT, False)])
def test_seven_bit_weights_can_not_saturate_and_eight_bit_weights_do(scheme: Scheme, exact: bool) -> None:
    weight = np.ones((2, 4, 1, 1), np.float32)
    model = make_model(
        [helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
         helper.make_node("GlobalAveragePool", ["c"], ["y"], name="pool")], {"w": weight},
    )  # fmt: skip
    quantized = insert_qdq(model, {"x": (0, 1), "c": (0, 4), "y": (0, 4)}, scheme)
    integers = constants(quantized.model)["conv_weight_quantized"].reshape(2, 4)
    worst = np.full(4, 255, np.uint8)
    true_sum = (worst.astype(np.int64) * integers).sum(-1)
    assert np.array_equal(saturating_kernel(worst, integers), true_sum) is exact
    assert quantized.weight_bits == {"conv": 7 if exact else 8}


def test_depthwise_layers_keep_eight_bits_in_the_saturating_scheme(residual_model: onnx.ModelProto) -> None:
    quantized = insert_qdq(residual_model, ranges_of(residual_model, images()), SEVEN_BITS)
    assert quantized.weight_bits == {"first": 7, "depthwise": 8, "pointwise": 7, "gemm": 7}
    assert np.abs(constants(quantized.model)["pointwise_weight_quantized"].astype(int)).max() == 64


def test_activation_scales_are_scalars_and_weights_have_one_scale_per_output(residual_model: onnx.ModelProto) -> None:
    stored = constants(insert_qdq(residual_model, ranges_of(residual_model, images()), EXACT).model)
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
    quantized = insert_qdq(model, ranges_of(model, given_images), EXACT).model
    assert constants(quantized)["gemm_weight_scale"].shape == (3,)
    np.testing.assert_allclose(run_model(quantized, given_images), run_model(model, given_images), atol=0.15)


def test_value_moving_operators_share_the_range_of_their_input(residual_model: onnx.ModelProto) -> None:
    assert "f" not in tensors_to_calibrate(residual_model)
    stored = constants(insert_qdq(residual_model, ranges_of(residual_model, images()), EXACT).model)
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
    quantized = insert_qdq(model, ranges_of(model, given_images), EXACT)
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
    quantized = insert_qdq(model, ranges_of(model, given_images), EXACT)
    assert quantized.float_ops == {"Relu": 1}
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
    answered = run_model(insert_qdq(model, ranges_of(model, given_images), EXACT).model, given_images)
    np.testing.assert_allclose(answered[:, :, 0, 0], np.tile(bias, (16, 1)), atol=0.02)


def test_a_quantized_model_is_refused(residual_model: onnx.ModelProto) -> None:
    quantized = insert_qdq(residual_model, ranges_of(residual_model, images()), EXACT).model
    with pytest.raises(InputError, match="quantized already; give the float32 model"):
        tensors_to_calibrate(quantized)


def test_a_model_without_weights_is_refused() -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"], name="r")], {})
    with pytest.raises(InputError, match="nothing to quantize"):
        tensors_to_calibrate(model)


def test_a_scaled_gemm_is_refused_by_name() -> None:
    model = make_model(
        [helper.make_node("Flatten", ["x"], ["f"], name="f"),
         helper.make_node("Gemm", ["f", "w"], ["y"], name="odd", alpha=2.0)],
        {"w": np.ones((256, 2), np.float32)}, output_rank=2,
    )  # fmt: skip
    with pytest.raises(InputError, match="odd: Gemm with alpha"):
        insert_qdq(model, {"x": (-1, 1), "f": (-1, 1)}, EXACT)
