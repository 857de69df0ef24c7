"""Equalization keeps the outputs of every image, makes channels equally large, and improves INT8."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compress.quantization import post_training
from compress.quantization.correction.channels import Channels, channel_statistics
from compress.quantization.correction.equalization import equalize
from compress.quantization.ort_graph import logits
from compress.quantization.schemes import SCHEMES
from export.plan import plan_quantization
from export.quantize import insert_qdq
from runtimes.console import SilentConsole
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SCHEME = SCHEMES["x86-vnni"]
WIDTH = 8
Array = np.ndarray


def images(count: int) -> EvalSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return EvalSet(pixels, None, tuple(map(str, range(count))), tuple("abcde"), PREPROCESSING, "digest")


def statistics_of(model: onnx.ModelProto, given_images: EvalSet) -> dict[str, Channels]:
    return channel_statistics(model, post_training._tensors_to_measure(model, SCHEME), given_images, SilentConsole())


def node(op: str, inputs: Iterable[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], name=f"{op}_{output}", **attributes)


def network(kind: str, seed: int = 0, spread: float = 100.0) -> onnx.ModelProto:
    """Return conv-(something)-conv-pool-gemm, whose first layer's channels differ in size by the factor `spread`."""
    rng = np.random.default_rng(seed)
    size = np.geomspace(1 / np.sqrt(spread), np.sqrt(spread), WIDTH)

    def weights(*shape: int) -> Array:
        return (rng.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    along = (slice(None), *[None] * 3)
    constants = {
        "w1": (weights(WIDTH, 3, 3, 3) * size[along]).astype(np.float32), "b1": (size / 5).astype(np.float32),
        "w2": (weights(WIDTH, WIDTH, 1, 1) / size[None, :, None, None]).astype(np.float32),
        "b2": weights(WIDTH), "w3": weights(5, WIDTH), "b3": weights(5),
    }  # fmt: skip
    middle, last, bias = [], "r1", ["b1"]
    if kind == "depthwise":
        constants["wd"] = weights(WIDTH, 1, 3, 3)
        middle = [node("Conv", ["r1", "wd"], "d", group=WIDTH, pads=[1] * 4), node("Relu", ["d"], "dr")]
        last = "dr"
    elif kind == "groups":
        read = np.stack([size[:4]] * 4 + [size[4:]] * 4)[:, :, None, None]
        constants["w2"] = (weights(WIDTH, WIDTH // 2, 1, 1) / read).astype(np.float32)
    elif kind == "residual":
        constants["wr"] = (weights(WIDTH, WIDTH, 1, 1) / size[None, :, None, None] * size[along]).astype(np.float32)
        middle = [node("Conv", ["r1", "wr"], "res"), node("Add", ["r1", "res"], "sum")]
        last = "sum"
    elif kind == "pools":
        middle = [node("MaxPool", ["r1"], "mp", kernel_shape=[2, 2]),
                  node("AveragePool", ["mp"], "ap", kernel_shape=[2, 2])]  # fmt: skip
        last = "ap"
    elif kind == "no bias":
        bias = []
        del constants["b1"]
    elif kind == "shared":  # both layers read the very same constant
        constants["w2"] = (np.ones((WIDTH, WIDTH, 1, 1)) / size[None, :, None, None]).astype(np.float32)
        middle = [node("Conv", ["r1", "w2"], "twin"), node("Relu", ["twin"], "tr"), node("Conv", ["tr", "w2"], "m")]
        last = "m"
    clip = kind == "clip"
    if clip:
        constants |= {"zero": np.asarray(0, np.float32), "six": np.asarray(6, np.float32)}
    gemm = node("Gemm", ["f", "w3", "b3"], "y", transB=1)
    if kind == "gemm":
        constants["w3"] = np.ascontiguousarray(constants["w3"].T)
        gemm = node("Gemm", ["f", "w3", "b3"], "y")
    flat = "p"
    if kind == "flatten":  # of all positions, so that the Gemm has several inputs for each channel
        constants["w3"], flat = weights(5, WIDTH * 64), "r2"
    nodes = [
        node("Conv", ["x", "w1", *bias], "c1", pads=[1] * 4),
        node("Clip", ["c1", "zero", "six"], "r1") if clip else node("Relu", ["c1"], "r1"),
        *middle,
        node("Conv", [last, "w2", "b2"], "c2", group=2 if kind == "groups" else 1), node("Relu", ["c2"], "r2"),
        node("GlobalAveragePool", ["r2"], "p"), node("Flatten", [flat], "f"), gemm,
    ]  # fmt: skip
    return onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)


KINDS = ["plain", "depthwise", "groups", "residual", "pools", "no bias", "gemm", "flatten", "shared", "clip"]


def equalized(model: onnx.ModelProto, given_images: EvalSet) -> tuple:
    statistics = statistics_of(model, given_images)
    return statistics, equalize(model, statistics, plan_quantization(model, SCHEME).ranged)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_do_not_change_even_far_outside_the_calibration_range(kind: str) -> None:
    model = network(kind)
    _, equal = equalized(model, images(8))
    assert equal.factors  # at least the tensor in front of the last pool
    onnx.checker.check_model(equal.model, full_check=True)
    far = np.random.default_rng(5).normal(0, 50, (16, 3, 8, 8)).astype(np.float32)
    for inputs in (far, PREPROCESSING.normalize(images(8).images)):
        expected = onnx_graphs.run_model(model, inputs)
        assert onnx_graphs.sqnr_db(expected, onnx_graphs.run_model(equal.model, inputs)) > 90


@settings(max_examples=25)
@given(
    kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6), spread=st.floats(1, 1e4), loudness=st.floats(0.01, 1000)
)
def test_outputs_of_any_network_and_image_do_not_change(kind: str, seed: int, spread: float, loudness: float) -> None:
    model = network(kind, seed, spread)
    _, equal = equalized(model, images(4))
    inputs = np.random.default_rng(seed).normal(0, loudness, (4, 3, 8, 8)).astype(np.float32)
    expected, result = onnx_graphs.run_model(model, inputs), onnx_graphs.run_model(equal.model, inputs)
    scale = max(float(np.abs(value).max()) for value in onnx_graphs.all_values(model, inputs).values())
    assert np.abs(expected - result).max() <= 1e-4 * scale


def test_nothing_is_scaled_across_a_clip() -> None:
    """A factor would seem exact on calibration images that never reach 6, but it is not."""
    model = network("clip")
    stored = onnx_graphs.constants_of(model)
    quiet = images(4)
    assert onnx_graphs.tensor_values(model, "c1", 100 * PREPROCESSING.normalize(quiet.images)).max() > 6
    _, equal = equalized(model, quiet)
    assert not {"c1", "r1"} & set(equal.factors)
    result = onnx_graphs.constants_of(equal.model)
    np.testing.assert_array_equal(result["w1"], stored["w1"])
    second = next(one for one in equal.model.graph.node if one.name == "Conv_c2")
    ratio = result[second.input[1]] / stored["w2"]  # scaled for its output, not for its input
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "depthwise", "groups", "pools", "no bias", "gemm"])
def test_channels_are_equally_large_afterwards(kind: str) -> None:
    """Except channels below 1/32 of the largest, which are scaled by 32."""
    model = network(kind, spread=20)
    statistics, equal = equalized(model, images(8))
    measured = statistics_of(equal.model, images(8))
    before, after = statistics["r1"].reach, measured["r1"].reach
    assert before.max() / before.min() > 10
    alive = before > before.max() / 32
    assert alive.sum() >= 3
    np.testing.assert_allclose(after[alive], after[alive][0], rtol=1e-3)
    assert after.max() == pytest.approx(after[alive][0], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scaled_statistics_are_those_of_the_new_model(kind: str) -> None:
    model = network(kind)
    statistics, equal = equalized(model, images(8))
    measured = statistics_of(equal.model, images(8))
    scaled = equal.scale(statistics)
    assert set(scaled) == set(measured)
    for name, known in scaled.items():
        size = float(measured[name].reach.max())
        for one, other in zip(vars(known).values(), vars(measured[name]).values(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * size, err_msg=name)


@pytest.mark.parametrize("kind", ["plain", "residual", "depthwise"])
def test_int8_gains_10_db_where_channels_differ_by_a_factor_of_100(kind: str) -> None:
    model, given_images = network(kind, spread=100), images(32)
    statistics, equal = equalized(model, given_images)
    expected = logits(model, given_images)
    reached = []
    for one, known in ((model, statistics), (equal.model, equal.scale(statistics))):
        ranges = {name: (float(each.low.min()), float(each.high.max())) for name, each in known.items()}
        answered = logits(insert_qdq(one, ranges, SCHEME).model, given_images)
        reached.append(onnx_graphs.sqnr_db(expected, answered))
    assert reached[1] > reached[0] + 10, reached


def test_inputs_outputs_and_tensors_with_other_readers_are_not_scaled() -> None:
    model = network("plain")
    _, equal = equalized(model, images(4))
    assert not {"x", "y"} & set(equal.factors)
    assert {"c1", "r1", "c2", "r2", "p", "f"} <= set(equal.factors)
    extra = onnx.ModelProto()
    extra.CopyFrom(model)
    extra.graph.node.append(node("Sigmoid", ["r1"], "other"))  # not a layer: it would read scaled values
    _, equal = equalized(extra, images(4))
    assert not {"c1", "r1"} & set(equal.factors)


def test_a_tensor_that_is_zero_stays_zero() -> None:
    model = network("plain")
    for tensor in model.graph.initializer:
        if tensor.name in ("w1", "b1"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    _, equal = equalized(model, images(4))
    inputs = PREPROCESSING.normalize(images(4).images)
    result = onnx_graphs.run_model(equal.model, inputs)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, onnx_graphs.run_model(model, inputs), rtol=1e-4)


def test_what_other_images_exceed_becomes_a_reserve_of_the_whole_tensor() -> None:
    """One channel reaches 1.2 times as far in images that are not averaged, another one ten times."""
    model = network("plain", spread=10.0)
    statistics = statistics_of(model, images(8))
    tensors = plan_quantization(model, SCHEME).ranged
    exceeding = dict(statistics)
    for name, channels in statistics.items():
        more = np.ones(len(channels.mean))
        more[:2] = (1.2, 10.0)
        exceeding[name] = replace(channels, low=channels.low * more, high=channels.high * more)
    equal = equalize(model, exceeding, tensors)
    scaled, name = equal.scale(exceeding), next(name for name in equal.factors if name in tensors)
    usual, reach = scaled[name].usual, scaled[name].reach
    np.testing.assert_allclose(usual[2:], usual[0])
    np.testing.assert_allclose(reach[0] / usual[0], 1.2)
    np.testing.assert_allclose(reach[1] / usual[0], 1.5)  # no more: the others would lose too many steps
