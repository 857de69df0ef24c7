"""The report by layer, compared with the tensors and weights of the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import numpy_helper

from compress.quantization import post_training
from compress.quantization.config import Quantize
from compress.quantization.layer_report import IMAGES, describe_layers
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES
from compress.quantization.search import candidates
from compress.quantization.search.candidates import Candidate, Search
from export.layers import layers_of
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
NAMES = ["first", "depthwise", "pointwise", "gemm"]


def images(count: int) -> EvalSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return EvalSet(pixels, None, tuple(map(str, range(count))), tuple("abcde"), PREPROCESSING, "digest")


def search(scheme: str, model: onnx.ModelProto | None = None, leading: int = 0) -> tuple[Candidate, Search]:
    """Quantize with the first `leading` layers float."""
    model = model or onnx_graphs.residual_model(channels=3)
    request = QuantizationRequest(images(120), SCHEMES[scheme], Quantize())
    best, attempted = post_training.quantize(model, request, lambda *_: "slower")
    if leading:
        floats = frozenset(NAMES[:leading])
        best = candidates.attempt(attempted, best.graph, floats)
    return best, attempted


@pytest.mark.parametrize("scheme", ["x86-avx2", "tensorrt"])
def test_sqnr_is_that_of_the_tensor_that_a_layer_writes(scheme: str) -> None:
    best, attempted = search(scheme)
    lines = {line.name: line for line in describe_layers(best, attempted)}
    assert list(lines) == NAMES
    batch = PREPROCESSING.normalize(attempted.held_out.images[:IMAGES])
    assert len(attempted.held_out) > IMAGES  # the report uses only some of them
    written = {"first": "a1", "depthwise": "a2", "pointwise": "c3"} if scheme == "x86-avx2" else {}
    for name, line in lines.items():
        if name not in written:
            assert line.sqnr_db is None  # its output is not quantized
            continue
        expected = onnx_graphs.tensor_values(best.graph.model, written[name], batch).astype(np.float64)
        found_values = onnx_graphs.tensor_values(best.quantized.model, f"{written[name]}_dequantized", batch)
        assert line.sqnr_db == pytest.approx(onnx_graphs.sqnr_db(expected, found_values), abs=0.2)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_precision_bits_and_operators(scheme: str) -> None:
    best, attempted = search(scheme, leading=1)
    lines = describe_layers(best, attempted)
    assert [line.op for line in lines] == ["Conv", "depthwise Conv", "Conv", "Gemm"]
    assert [line.outputs for line in lines] == [8, 8, 8, 5]
    assert [line.precision for line in lines] == ["float32", "int8", "int8", "int8"]
    assert lines[0].weight_bits is None
    assert {line.weight_bits for line in lines[1:]} == {7 if scheme == "generic" else 8}
    limited = [line.neighbours_limited for line in lines[1:]]
    assert limited == ([False, True, True] if scheme == "x86-avx2" else [False] * 3)


def test_limited_channels_are_those_with_too_large_pairs_of_weights() -> None:
    """Three rows of the pointwise layer have two large neighbours of one sign, the others of opposite signs."""
    model = onnx_graphs.residual_model(channels=3)
    weight = np.zeros((8, 8, 1, 1), np.float32)
    weight[:, 4], weight[:, 5] = 1.0, -0.9
    weight[:3, 5] = 0.9  # 127 + 114 > 128
    for tensor in model.graph.initializer:
        if tensor.name == "w3":
            tensor.CopyFrom(numpy_helper.from_array(weight, "w3"))
    expected = {}
    for name, layer in layers_of(model).items():
        rows = layer.rows() / np.abs(layer.rows()).max(1)[:, None] * 127
        even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
        expected[name] = int((np.abs(even[:, ::2] + even[:, 1::2]).max(1) > 127.5 * 1.0001).sum())
    assert expected["pointwise"] == 3
    expected["depthwise"] = 0  # sums in 32 bits
    for scheme in ("x86-avx2", "x86-vnni"):
        best, attempted = search(scheme, model)
        best = candidates.attempt(attempted, replace(best.graph, model=model))  # not the equalized one
        counted = {line.name: line.limited_channels for line in describe_layers(best, attempted)}
        assert counted == (expected if scheme == "x86-avx2" else dict.fromkeys(NAMES, 0))


def test_with_7_bits_every_channel_is_limited() -> None:
    best, attempted = search("generic")
    assert [line.limited_channels for line in describe_layers(best, attempted)] == [8, 8, 8, 5]


def test_a_tensor_that_is_nan_for_single_images_is_named() -> None:
    best, attempted = search("x86-avx2")
    graph = best.graph.model.graph
    name = next(node.input[2] for node in graph.node if node.name == "first")
    bias = next(tensor for tensor in graph.initializer if tensor.name == name)
    bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, np.inf, np.float32), name))
    with pytest.raises(InputError, match="tensor a1 is NaN or infinite for an image that runs alone"):
        describe_layers(best, attempted)
