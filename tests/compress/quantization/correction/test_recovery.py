"""Bias correction and rounding in graph order, on networks that need them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest
import torch
from consoles import RecordingConsole
from onnx import helper

from compress.quantization import post_training
from compress.quantization.correction import recovery
from compress.quantization.correction.activations import Activations
from compress.quantization.correction.channels import Channels, channel_statistics
from compress.quantization.correction.recovery import analytic_bias, correct_biases, recover
from compress.quantization.ort_graph import logits
from compress.quantization.schemes import SCHEMES
from export.layers import IntegerWeights, Layer, layers_of, nearest, overflowing_neighbours
from export.quantize import Quantized, insert_qdq
from runtimes.console import SilentConsole
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
Array = np.ndarray


def images(count: int, seed: int = 0) -> EvalSet:
    """Return images whose neighbouring pixels are correlated."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 1, 1, 3)) + rng.normal(0, 30, (count, 8, 8, 3))
    names = tuple(map(str, range(count)))
    return EvalSet(pixels.clip(0, 255).astype(np.uint8), None, names, tuple("abcde"), PREPROCESSING, f"digest {seed}")


def watched(model: onnx.ModelProto, evalset: EvalSet, scheme: str) -> dict[str, Channels]:
    return channel_statistics(
        model, post_training._tensors_to_measure(model, SCHEMES[scheme]), evalset, SilentConsole()
    )


def quantized(
    model: onnx.ModelProto, statistics: Mapping[str, Channels], scheme: str, float_nodes: frozenset[str] = frozenset()
) -> Quantized:
    ranges = {name: (float(known.low.min()), float(known.high.max())) for name, known in statistics.items()}
    return insert_qdq(model, ranges, SCHEMES[scheme], float_nodes=float_nodes)


def layer(op: str, shape: tuple[int, ...], groups: int = 1, axis: int = 0) -> Layer:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, shape)
    return Layer("l", op, "x", "y", weight, rng.normal(0, 1, shape[axis]), axis, groups, (1, 1), (0,) * 4, (1, 1))


def dequantized(subject: Layer, weights: IntegerWeights) -> Array:
    shape = [1] * subject.weight.ndim
    shape[subject.axis] = -1
    return weights.integers * weights.scale.reshape(shape)


@pytest.mark.parametrize(("shape", "groups"), [
    ((6, 5, 1, 1), 1), ((1, 5, 1, 1), 1), ((6, 3, 1, 1), 2), ((6, 1, 1, 1), 6), ((12, 1, 1, 1), 6)
])  # fmt: skip
def test_the_analytic_bias_keeps_the_mean_of_any_1x1_convolution(shape: tuple[int, ...], groups: int) -> None:
    subject = layer("Conv", shape, groups)
    weights = nearest(subject, "unknown", 0.01)
    evalset = torch.tensor(np.random.default_rng(1).uniform(0, 3, (20, shape[1] * groups, 4, 4)))

    def mean_output(weight: Array, bias: Array) -> Array:
        return torch.nn.functional.conv2d(
            evalset, torch.tensor(weight), torch.tensor(bias), groups=groups
        ).mean((0, 2, 3)).numpy()  # fmt: skip

    expected = mean_output(subject.weight, subject.bias)
    shifted = analytic_bias(subject, weights, evalset.mean((0, 2, 3)).numpy())
    np.testing.assert_allclose(mean_output(dequantized(subject, weights), shifted), expected, rtol=1e-12, atol=1e-12)
    if shape[1] > 1:  # a single weight is its own scale and loses nothing
        assert np.abs(mean_output(dequantized(subject, weights), subject.bias) - expected).max() > 1e-4


@pytest.mark.parametrize(("shape", "groups"), [((6, 5, 3, 3), 1), ((6, 3, 3, 5), 2), ((6, 1, 3, 3), 6)])
def test_the_analytic_bias_of_larger_kernels_is_exact_for_constant_images(shape: tuple[int, ...], groups: int) -> None:
    subject = layer("Conv", shape, groups)
    weights = nearest(subject, "unknown", 0.01)
    mean = np.random.default_rng(1).uniform(0, 3, shape[1] * groups)
    evalset = torch.tensor(np.broadcast_to(mean[None, :, None, None], (1, len(mean), 7, 7)).copy())
    outputs = [
        torch.nn.functional.conv2d(evalset, torch.tensor(weight), torch.tensor(bias), groups=groups).numpy()
        for weight, bias in (
            (subject.weight, subject.bias), (dequantized(subject, weights), analytic_bias(subject, weights, mean))
        )
    ]  # fmt: skip
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_analytic_bias_keeps_the_mean_of_a_gemm(axis: int) -> None:
    subject = layer("Gemm", (4, 7), axis=axis)
    weights = nearest(subject, "unknown", 0.01)
    mean = np.random.default_rng(1).uniform(0, 3, subject.weight.shape[1 - axis])
    exact, rounded = subject.weight, dequantized(subject, weights)
    shifted = analytic_bias(subject, weights, mean)
    if axis == 0:
        np.testing.assert_allclose(rounded @ mean + shifted, exact @ mean + subject.bias, rtol=1e-12)
    else:
        np.testing.assert_allclose(mean @ rounded + shifted, mean @ exact + subject.bias, rtol=1e-12)


def leaning_model(bias: bool = True) -> onnx.ModelProto:
    """Return a network where nearly all weights round down and all inputs are positive, so that every mean shifts."""
    rng = np.random.default_rng(0)
    second = (rng.integers(-10, 11, (5, 16, 1, 1)) + 0.45).astype(np.float32) / 127
    second[:, 0] = 1.0
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w2", *(["b2"] if bias else [])], ["d"], name="second"),
        helper.make_node("GlobalAveragePool", ["d"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["y"], name="flatten"),
    ]
    constants = {"w1": rng.normal(0, 0.3, (16, 3, 1, 1)).astype(np.float32), "b1": np.full(16, 2, np.float32),
                 "w2": second}  # fmt: skip
    if bias:
        constants["b2"] = np.zeros(5, np.float32)
    return onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)


@pytest.mark.parametrize("scheme", ["x86-vnni", "tensorrt"])
def test_bias_correction_gains_6_db_if_rounding_is_biased(scheme: str) -> None:
    model, evalset = leaning_model(), images(32)
    statistics = watched(model, evalset, scheme)
    result, expected = quantized(model, statistics, scheme), logits(model, evalset)
    before = onnx_graphs.sqnr_db(expected, logits(result.model, evalset))
    correct_biases(model, result, statistics)
    assert onnx_graphs.sqnr_db(expected, logits(result.model, evalset)) > before + 6


@pytest.mark.parametrize("scheme", ["x86-vnni", "tensorrt"])
def test_a_layer_without_a_bias_gets_one(scheme: str) -> None:
    evalset = images(32)
    answers = []
    for bias in (True, False):
        model = leaning_model(bias)
        statistics = watched(model, evalset, scheme)
        result = quantized(model, statistics, scheme)
        correct_biases(model, result, statistics)
        answers.append(logits(result.model, evalset))
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_recovery_gains_8_db_over_nearest_rounding_on_other_images(scheme: str) -> None:
    """Weights with few effective bits and correlated inputs: rounding is the largest error."""
    model, evalset, others = coarse_model(), images(64), images(48, seed=1)
    statistics = watched(model, evalset, scheme)
    plain, recovered = (quantized(model, statistics, scheme) for _ in range(2))
    correct_biases(model, plain, statistics)
    recover(model, recovered, evalset, statistics, SilentConsole())
    expected = logits(model, others)
    before, after = (onnx_graphs.sqnr_db(expected, logits(subject.model, others)) for subject in (plain, recovered))
    assert after > before + 8, (before, after)
    layers = layers_of(model)
    limited = [name for name in recovered.weights if not layers[name].depthwise]
    if SCHEMES[scheme].sums == "neighbours":
        assert [overflowing_neighbours(layers[name], recovered.weights[name]) for name in limited] == [0] * len(limited)
    if SCHEMES[scheme].sums == "unknown":
        assert max(np.abs(subject.integers.astype(int)).max() for subject in recovered.weights.values()) <= 64


def coarse_model() -> onnx.ModelProto:
    """Return weights with one value per row 100 times the others, for which few integer steps remain."""
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> Array:
        array = rng.normal(0, 1, shape)
        array.reshape(len(array), -1)[:, 0] = 100
        return (array / np.sqrt(array[0].size)).astype(np.float32)

    constants = {"w1": weights(16, 3, 3, 3), "b1": rng.normal(0, 1, 16).astype(np.float32),
                 "w2": weights(16, 16, 3, 3), "b2": rng.normal(0, 1, 16).astype(np.float32),
                 "w3": weights(5, 16), "b3": rng.normal(0, 1, 5).astype(np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", pads=[1] * 4),
        helper.make_node("Add", ["r1", "c2"], ["s"], name="add"),
        helper.make_node("Relu", ["s"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="gemm", transB=1),
    ]
    return onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)


@pytest.mark.parametrize("scheme", ["x86-avx2", "tensorrt"])
def test_two_runs_give_the_same_bytes_and_do_not_change_the_float32_model(scheme: str) -> None:
    model, evalset = onnx_graphs.residual_model(channels=3), images(24)
    statistics, before = watched(model, evalset, scheme), model.SerializeToString()
    result = [quantized(model, statistics, scheme) for _ in range(2)]
    for subject in result:
        recover(model, subject, evalset, statistics, SilentConsole())
    assert result[0].model.SerializeToString() == result[1].model.SerializeToString()
    assert model.SerializeToString() == before


@pytest.mark.parametrize("scheme", ["x86-vnni", "tensorrt"])
def test_the_logits_have_the_means_of_float32(scheme: str) -> None:
    """The last layer's output is not quantized, but its bias is corrected too."""
    model, evalset = coarse_model(), images(64)
    statistics = watched(model, evalset, scheme)
    result = quantized(model, statistics, scheme)
    expected = logits(model, evalset).mean(0)
    off = np.abs(logits(result.model, evalset).mean(0) - expected).max()
    recover(model, result, evalset, statistics, SilentConsole())
    assert np.abs(logits(result.model, evalset).mean(0) - expected).max() < off / 10


@pytest.mark.parametrize("float_nodes", [{"first"}, {"gemm"}, {"first", "depthwise"}, {"pointwise"}])
@pytest.mark.parametrize("scheme", ["x86-vnni", "tensorrt"])
def test_layers_that_stay_float_keep_their_weights(scheme: str, float_nodes: set[str]) -> None:
    model, evalset = onnx_graphs.residual_model(channels=3), images(24)
    statistics = watched(model, evalset, scheme)
    result = quantized(model, statistics, scheme, frozenset(float_nodes))
    recover(model, result, evalset, statistics, SilentConsole())
    stored, original = onnx_graphs.constants_of(result.model), onnx_graphs.constants_of(model)
    kept = {"first": "w1", "depthwise": "w2", "pointwise": "w3", "gemm": "w4"}
    for name in float_nodes:
        np.testing.assert_array_equal(stored[kept[name]], original[kept[name]])
    assert set(result.weights) == set(kept) - float_nodes
    assert onnx_graphs.sqnr_db(logits(model, evalset), logits(result.model, evalset)) > 20


@pytest.mark.parametrize("float_nodes", [set(), {"first"}, {"depthwise"}, {"pointwise"}, {"gemm"}])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_layer_is_rounded_once_and_its_bias_shifted_at_most_once(
    scheme: str, float_nodes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may run a layer that an earlier step rounded, or a float layer after the one that it rounds."""
    rounded: list[str] = []
    shifted: list[str] = []

    class Watched(recovery._Recovery):
        def round(self, layer: Layer) -> None:
            rounded.append(layer.name)
            super().round(layer)

        def shift_bias(self, layer: Layer, shift: Array) -> None:
            shifted.append(layer.name)
            super().shift_bias(layer, shift)

    monkeypatch.setattr(recovery, "_Recovery", Watched)
    model, evalset = onnx_graphs.residual_model(channels=3), images(12)
    statistics = watched(model, evalset, scheme)
    result = quantized(model, statistics, scheme, frozenset(float_nodes))
    recover(model, result, evalset, statistics, SilentConsole())
    assert sorted(rounded) == sorted(set(result.weights))
    assert len(set(shifted)) == len(shifted)


@pytest.mark.parametrize("count", [12, 10])
def test_a_fixed_batch_gives_the_same_accuracy(count: int) -> None:
    free, fixed = onnx_graphs.residual_model(channels=3), onnx_graphs.residual_model(channels=3)
    for value in (fixed.graph.input[0], fixed.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    evalset, others = images(count), images(20, seed=1)
    reached = []
    for model in (free, fixed):
        statistics = watched(model, evalset, "x86-vnni")
        result = quantized(model, statistics, "x86-vnni")
        recover(model, result, evalset, statistics, SilentConsole())
        reached.append(onnx_graphs.sqnr_db(logits(model, others), logits(result.model, others)))
    assert abs(reached[0] - reached[1]) < 3, reached


def test_activations_are_deleted_after_their_last_use_and_their_folder_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_names: list[set[str]] = []

    class Watched(Activations):
        def append(self, name: str, batch: Array) -> None:
            super().append(name, batch)
            stored_names.append(set(self._batches))

    monkeypatch.setattr(recovery, "Activations", Watched)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model, evalset = onnx_graphs.residual_model(channels=3), images(8)
    statistics = watched(model, evalset, "x86-vnni")
    console = RecordingConsole()
    recover(model, quantized(model, statistics, "x86-vnni"), evalset, statistics, console)
    assert console.events[-1] == ("round layers", len(console.events), len(console.events))
    last = {name for names in stored_names for name in names}
    assert max(len(names) for names in stored_names) < len(last) - 2
    assert not any({"x", "x_quantized"} & names for names in stored_names[-2:])
    assert not list(tmp_path.iterdir())


def test_an_exception_deletes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        assert list(tmp_path.iterdir())
        raise ZeroDivisionError

    monkeypatch.setattr(recovery, "second_moments", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model, evalset = onnx_graphs.residual_model(channels=3), images(8)
    statistics = watched(model, evalset, "x86-vnni")
    result = quantized(model, statistics, "x86-vnni")
    with pytest.raises(ZeroDivisionError):
        recover(model, result, evalset, statistics, SilentConsole())
    assert not list(tmp_path.iterdir())


def test_a_1x1_layer_of_one_output_gets_the_bias_of_its_own_weights() -> None:
    """Rounding must not change the float weights from which the bias is computed."""
    subject = layer("Conv", (1, 12, 1, 1))
    before = subject.weight.copy()
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 1, (200, 3)) @ rng.normal(0, 1, (3, 12))
    moments = inputs.T @ inputs / 200
    recovery._round_rows(subject, np.abs(subject.rows()).max(1) / 127, moments[None], 200, SCHEMES["x86-vnni"])
    np.testing.assert_array_equal(subject.weight, before)


def test_a_layer_after_a_multiplication_by_a_constant_is_rounded_too() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["h"], name="half"),
        helper.make_node("Conv", ["h", "w", "b"], ["c"], name="conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["y"], name="flatten"),
    ]
    constants = {"half": np.asarray(0.5, np.float32), "w": rng.normal(0, 1, (5, 3, 3, 3)).astype(np.float32),
                 "b": rng.normal(0, 1, 5).astype(np.float32)}  # fmt: skip
    model, evalset = onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2), images(16)
    statistics = watched(model, evalset, "x86-vnni")
    result = quantized(model, statistics, "x86-vnni")
    recover(model, result, evalset, statistics, SilentConsole())
    assert onnx_graphs.sqnr_db(logits(model, evalset), logits(result.model, evalset)) > 30


@pytest.mark.parametrize("kind", ["parts", "tokens"])
def test_no_bias_is_shifted_by_channels_that_are_not_its_own(kind: str) -> None:
    """A softmax over parts of a layer, as of selective kernels, and tokens that have as many rows as features."""
    rng, node = np.random.default_rng(0), helper.make_node
    split = node("Conv", ["x", "w"], ["c"], name="conv", strides=[2, 2], pads=[1] * 4)
    parts = [
        node("Reshape", ["c", "halves"], ["r"], name="halve"), node("Softmax", ["r"], ["s"], name="softmax", axis=1),
        node("Mul", ["r", "s"], ["m"], name="weight"), node("ReduceSum", ["m", "one"], ["q"], name="sum", keepdims=0),
    ]  # fmt: skip
    tokens = [
        node("Reshape", ["c", "rows"], ["r"], name="tokens"), node("Transpose", ["r"], ["t"], name="t", perm=[0, 2, 1]),
        node("LayerNormalization", ["t", "gain"], ["n"], name="norm"), node("Reshape", ["n", "map"], ["q"], name="map"),
    ]  # fmt: skip
    last = [node("Conv", ["q", "v"], ["d"], name="last"), node("GlobalAveragePool", ["d"], ["y"], name="pool")]
    constants = {
        "w": rng.normal(0, 1, (16, 3, 3, 3)), "v": rng.normal(0, 1, (5, 8 if kind == "parts" else 16, 1, 1)),
        "gain": rng.normal(1, 0.1, 16),
    }  # fmt: skip
    shapes = {"halves": (0, 2, 8, 4, 4), "rows": (0, 16, 16), "map": (0, 16, 4, 4), "one": (1,)}
    model = onnx_graphs.make_model(
        [split, *(parts if kind == "parts" else tokens), *last],
        {name: value.astype(np.float32) for name, value in constants.items()}
        | {name: np.asarray(value) for name, value in shapes.items()},
        channels=3,
    )  # fmt: skip
    evalset = images(16)
    statistics = watched(model, evalset, "x86-vnni")
    result = quantized(model, statistics, "x86-vnni")
    steps = {layer: step for step in recovery._steps(result, onnx.TensorProto.UINT8, ("y",)) for layer in step.layers}
    assert [steps[name].output for name in ("conv", "last")] == ["c_quantized", "d_quantized"]
    recover(model, result, evalset, statistics, SilentConsole())
    assert onnx_graphs.sqnr_db(logits(model, evalset), logits(result.model, evalset)) > 15


@pytest.mark.parametrize(("between", "alone"), [("Relu", True), ("Softmax", False), ("Transpose", False)])
def test_a_layer_is_alone_if_its_channels_are_kept_apart(between: str, alone: bool) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w"], ["g"], name="gemm"),
        helper.make_node(between, ["g"], ["y"], name="between"),
    ]
    rng = np.random.default_rng(0)
    model = onnx_graphs.make_model(nodes, {"w": rng.normal(0, 1, (192, 5)).astype(np.float32)}, 3, output_rank=2)
    result = insert_qdq(model, {"x": (-2, 2)}, SCHEMES["x86-vnni"])
    (step,) = [step for step in recovery._steps(result, onnx.TensorProto.UINT8, ("y",)) if step.layers]
    assert (step.output, step.alone) == ("y", alone)


def test_before_a_curved_activation_the_mean_is_that_of_float32() -> None:
    """The error of the mean behind Softplus is not that of the bias."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Softplus", ["c"], ["s"], name="softplus"),
        helper.make_node("GlobalAveragePool", ["s"], ["y"], name="pool"),
    ]
    model = onnx_graphs.make_model(nodes, {"w": rng.normal(0, 1, (6, 3, 1, 1)).astype(np.float32)}, 3)
    evalset = images(16)
    statistics = watched(model, evalset, "tensorrt")
    result = insert_qdq(model, {"x": (-0.5, 0.5)}, SCHEMES["tensorrt"])  # cuts values off, which moves means
    recover(model, result, evalset, statistics, SilentConsole())
    (step,) = [step for step in recovery._steps(result, onnx.TensorProto.INT8, ("y",)) if step.layers]
    assert not step.alone
    means = [onnx_graphs.all_values(graph, PREPROCESSING.normalize(evalset.images))["c"].mean((0, 2, 3))
             for graph in (model, result.model)]  # fmt: skip
    np.testing.assert_allclose(means[1], means[0], atol=0.01)
