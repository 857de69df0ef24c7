"""Tests of export.layers: integer weights are close to the real ones and cannot overflow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper
from onnx_graphs import make_model, residual_model

from export.layers import (
    IntegerWeights,
    Layer,
    from_rows,
    largest_weight,
    layers_of,
    limits_neighbours,
    nearest,
    neighbour_sums,
    overflowing_neighbours,
    row_scales,
    to_rows,
    within_neighbours,
)
from export.scheme import Sums
from runtimes.errors import InputError

SUMS: list[Sums] = ["exact", "neighbours", "unknown"]
# (shape in the file, axis of the outputs, groups): 1x1, 3x3, depthwise, grouped, odd K, Gemm with transB 1 and 0
SHAPES = [((3, 4, 1, 1), 0, 1), ((2, 3, 3, 3), 0, 1), ((4, 1, 3, 3), 0, 4), ((4, 2, 3, 3), 0, 2), ((2, 5, 1, 1), 0, 1),
          ((4, 3, 1, 1), 0, 2), ((3, 7), 0, 1), ((7, 3), 1, 1), ((2, 1, 1, 1), 0, 1)]  # fmt: skip


def layer_with(weight: np.ndarray, axis: int = 0, groups: int = 1, bias: np.ndarray | None = None) -> Layer:
    bias = np.zeros(weight.shape[axis]) if bias is None else bias
    return Layer("layer", "Conv" if weight.ndim == 4 else "Gemm", "x", "y", weight, bias, axis, groups,
                 (1, 1), (0, 0, 0, 0), (1, 1))  # fmt: skip


@st.composite
def some_layers(draw: st.DrawFn) -> Layer:
    shape, axis, groups = draw(st.sampled_from(SHAPES))
    # few different values make ties, and neighbours at the very limit
    elements = st.floats(-1, 1, width=32) | st.sampled_from([-1.0, 0.0, 0.5, 1.0])
    largest = draw(st.sampled_from([1e-4, 1.0, 3e3]))
    weight = (draw(arrays(np.float32, shape, elements=elements)) * np.float32(largest)).astype(np.float64)
    bias = draw(arrays(np.float64, shape[axis], elements=st.floats(-1e6, 1e6, width=32)))
    return layer_with(weight, axis, groups, bias * draw(st.sampled_from([0.0, 1.0])))


def saturates(rows: np.ndarray) -> bool:
    """Return whether any uint8 activations overflow int16 in a sum of two products; extremes are 0 and 255."""
    even = np.pad(rows.astype(np.int64), ((0, 0), (0, rows.shape[1] % 2)))
    first, second = 255 * even[:, ::2], 255 * even[:, 1::2]
    sums = np.stack([first, second, first + second])
    return bool((sums > 32767).any() or (sums < -32768).any())


@given(some_layers(), st.sampled_from(SUMS), st.floats(1e-6, 10))
def test_every_weight_is_within_half_a_step_and_every_bias_fits_int32(
    layer: Layer, sums: Sums, input_scale: float
) -> None:
    made = nearest(layer, sums, input_scale)
    rows, integers = layer.rows(), to_rows(made.integers.astype(np.float64), layer.axis)
    assert made.integers.shape == layer.weight.shape
    assert made.integers.dtype == np.int8
    assert (made.scale > 0).all()
    np.testing.assert_array_equal(made.scale, made.scale.astype(np.float32))
    # float32 scales may be a hair too small, which the outermost weights feel
    assert (np.abs(integers * made.scale[:, None] - rows) <= (0.5 + 1e-4) * made.scale[:, None]).all()
    assert (np.abs(np.rint(layer.bias / (made.scale * input_scale))) <= 2.0**31 - 1).all()


@given(some_layers(), st.floats(1e-6, 10))
@example(layer_with(np.asarray([[[[1.0]], [[1.0]]]])), 1.0)
def test_neighbours_never_overflow_int16(layer: Layer, input_scale: float) -> None:
    made = nearest(layer, "neighbours", input_scale)
    rows = to_rows(made.integers, layer.axis)
    if layer.depthwise:
        assert np.array_equal(made.integers, nearest(layer, "exact", input_scale).integers)
    else:
        assert not saturates(rows)
        assert overflowing_neighbours(layer, made) == 0


@given(some_layers(), st.floats(1e-6, 10))
def test_where_nobody_knows_the_kernel_no_two_weights_anywhere_overflow(layer: Layer, input_scale: float) -> None:
    integers = nearest(layer, "unknown", input_scale).integers.astype(int)
    assert np.abs(integers).max() <= 64
    assert 2 * 255 * np.abs(integers).max() <= 32767


@given(some_layers(), st.sampled_from(SUMS))
def test_scales_are_the_smallest_that_fit(layer: Layer, sums: Sums) -> None:
    """A smaller scale would clip a weight, or let neighbours overflow."""
    layer = layer_with(layer.weight, layer.axis, layer.groups)  # without a bias, that may ask for more
    scale, rows = row_scales(layer, sums, 1.0), layer.rows()
    wanted = np.abs(rows).max(1) / largest_weight(sums)
    if limits_neighbours(layer, sums):
        wanted = np.maximum(wanted, np.abs(neighbour_sums(rows)).max(1) / 127.5)
    np.testing.assert_allclose(scale, np.where(wanted > 1e-30, wanted, 1.0), rtol=1e-6)


@pytest.mark.parametrize("sums", SUMS)
def test_a_channel_of_zeros_has_the_scale_one(sums: Sums) -> None:
    assert row_scales(layer_with(np.zeros((2, 3, 1, 1))), sums, 1.0).tolist() == [1.0, 1.0]


def test_a_large_bias_on_small_weights_asks_for_a_larger_scale() -> None:
    layer = layer_with(np.full((1, 2, 1, 1), 1e-6), bias=np.asarray([1e6]))
    made = nearest(layer, "exact", 0.01)
    assert abs(1e6 / (made.scale[0] * 0.01)) <= 2**30 * (1 + 1e-6)


@pytest.mark.parametrize(("shape", "axis", "groups"), SHAPES)
def test_rows_follow_the_kernels_order_and_come_back(shape: tuple[int, ...], axis: int, groups: int) -> None:
    weight = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    rows = to_rows(weight, axis)
    np.testing.assert_array_equal(from_rows(rows, shape, axis), weight)
    if len(shape) == 4:  # images whose patches lie in memory as (ky, kx, channel) times rows are the convolution
        _, channels, height, width = shape
        flat = [weight[:, c, y, x] for y in range(height) for x in range(width) for c in range(channels)]
        np.testing.assert_array_equal(rows, np.stack(flat, 1))
    else:
        np.testing.assert_array_equal(rows, weight if axis == 0 else weight.T)


@given(arrays(np.int8, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(-127, 127)))
def test_overflowing_neighbours_are_counted(rows: np.ndarray) -> None:
    layer = layer_with(rows.astype(np.float64))
    weights = IntegerWeights(rows, np.ones(len(rows)), np.zeros(len(rows)))
    counted = sum(abs(int(row[k]) + (int(row[k + 1]) if k + 1 < len(row) else 0)) > 128
                  for row in rows for k in range(0, len(row), 2))  # fmt: skip
    assert overflowing_neighbours(layer, weights) == counted
    assert (counted > 0) is saturates(rows)


def test_neighbours_of_a_gemm_lie_along_its_inputs_whichever_way_the_file_holds_it() -> None:
    rows = np.asarray([[100, 100, 100], [100, -100, 100]], np.int8)
    weights = [IntegerWeights(values, np.ones(2), np.zeros(2)) for values in (rows, rows.T)]
    counts = [overflowing_neighbours(layer_with(made.integers.astype(float), axis), made)
              for made, axis in zip(weights, (0, 1), strict=True)]  # fmt: skip
    assert counts == [1, 1]


@given(arrays(np.int16, 6, elements=st.integers(-300, 300)), arrays(np.int8, 6, elements=st.integers(-127, 127)))
def test_values_are_clipped_to_what_their_neighbours_leave(values: np.ndarray, before: np.ndarray) -> None:
    clipped = within_neighbours(values, before).astype(int)
    assert (np.abs(clipped) <= 127).all()
    assert (np.abs(clipped + before) <= 128).all()
    fits = (np.abs(values) <= 127) & (np.abs(values.astype(int) + before) <= 128)
    np.testing.assert_array_equal(clipped[fits], values[fits])


def test_the_layers_of_a_graph_are_told_with_what_their_arithmetic_needs() -> None:
    model = residual_model()
    layers = layers_of(model)
    assert list(layers) == ["first", "depthwise", "pointwise", "gemm"]
    assert [layer.depthwise for layer in layers.values()] == [False, True, False, False]
    assert [layer.kernel for layer in layers.values()] == [(3, 3), (3, 3), (1, 1), (1, 1)]
    first, gemm = layers["first"], layers["gemm"]
    assert (first.input, first.output, first.pads, first.strides) == ("x", "c1", (1, 1, 1, 1), (1, 1))
    assert (gemm.op, gemm.axis, gemm.weight.shape, gemm.bias.shape) == ("Gemm", 0, (5, 8), (5,))
    assert first.weight.dtype == np.float32


def test_computed_weights_and_biases_make_no_layer() -> None:
    node, kernel = helper.make_node, np.ones((4, 4, 1, 1), np.float32)
    model = make_model(
        [node("Relu", ["w"], ["computed"], name="r"), node("Conv", ["x", "computed"], ["c"], name="odd"),
         node("Conv", ["c", "w", ""], ["y"], name="plain")],
        {"w": kernel},
    )  # fmt: skip
    assert list(layers_of(model)) == ["plain"]
    assert not layers_of(model)["plain"].bias.any()


def test_what_can_not_be_rounded_is_refused_by_name() -> None:
    node, kernel = helper.make_node, np.ones((4, 4, 3, 3), np.float32)
    padded = make_model([node("Conv", ["x", "w"], ["y"], name="tf", auto_pad="SAME_UPPER")], {"w": kernel})
    with pytest.raises(InputError, match="tf: auto_pad SAME_UPPER is not supported"):
        layers_of(padded)
    valid = make_model([node("Conv", ["x", "w"], ["y"], name="v", auto_pad="VALID")], {"w": kernel})
    assert layers_of(valid)["v"].pads == (0, 0, 0, 0)


def test_a_convolution_of_another_dimension_is_no_layer() -> None:
    node = helper.make_node
    line = make_model(
        [node("Reshape", ["x", "shape"], ["f"], name="f"), node("Conv", ["f", "w"], ["y"], name="line")],
        {"w": np.ones((4, 4, 3), np.float32), "shape": np.asarray([0, 0, -1], np.int64)}, output_rank=3,
    )  # fmt: skip
    assert layers_of(line) == {}
