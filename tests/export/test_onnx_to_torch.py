"""Tests of export.onnx_to_torch against ONNX Runtime without fusions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import pytest
import torch
from networks import Tangle, make_lively
from onnx import helper

from export.onnx_to_torch import OnnxNetwork
from export.quantize import insert_qdq
from export.rewrites.hard_activations import rewrite_hard_activations
from export.scheme import Scheme
from export.to_onnx import to_onnx
from runtimes.errors import InputError

IMAGES = np.random.default_rng(1).normal(size=(3, 4, 8, 8)).astype(np.float32)
SCHEMES = {"unsigned": onnx_graphs.unsigned_scheme(), "signed": onnx_graphs.signed_scheme()}


def run_torch(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return OnnxNetwork(model)(torch.from_numpy(images)).numpy()


def one_node(op: str, inputs: list[str], constants: dict[str, np.ndarray], **attributes: object) -> onnx.ModelProto:
    return onnx_graphs.make_model([helper.make_node(op, inputs, ["y"], name="node", **attributes)], constants)


RANDOM = np.random.default_rng(2)
WEIGHT = RANDOM.normal(size=(6, 2, 3, 3)).astype(np.float32)
NUMBER = {"n": np.asarray(0.7, np.float32)}


@pytest.mark.parametrize(
    "model",
    [
        one_node("Conv", ["x", "w"], {"w": WEIGHT}, group=2, strides=[2, 1], pads=[1, 0, 1, 0], dilations=[1, 2]),
        one_node("Conv", ["x", "w"], {"w": WEIGHT}, group=2, pads=[0, 1, 2, 0]),
        one_node("MaxPool", ["x"], {}, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        one_node("MaxPool", ["x"], {}, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
        one_node("AveragePool", ["x"], {}, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
        one_node("Clip", ["x", "low", "high"], {"low": np.float32(-0.5), "high": np.float32(0.25)}),
        one_node("Clip", ["x", "", "n"], NUMBER),
        one_node("HardSigmoid", ["x"], {}, alpha=0.3, beta=0.4),
        one_node("HardSwish", ["x"], {}),
        one_node("Sigmoid", ["x"], {}),
        one_node("Sub", ["x", "n"], NUMBER),
        one_node("Div", ["n", "x"], NUMBER),
        one_node("Concat", ["x", "x"], {}, axis=1),
        one_node("Reshape", ["x", "shape"], {"shape": np.asarray([0, 2, 16, 8])}),
    ],
    ids=lambda model: model.graph.node[0].op_type,
)
def test_an_operator_computes_what_onnx_runtime_does(model: onnx.ModelProto) -> None:
    np.testing.assert_allclose(
        run_torch(model, IMAGES), onnx_graphs.run_model(model, IMAGES, exact=True), rtol=1e-4, atol=1e-5
    )


def test_a_small_graph_computes_what_onnx_runtime_does(residual_model: onnx.ModelProto) -> None:
    expected = onnx_graphs.run_model(residual_model, IMAGES)
    np.testing.assert_allclose(run_torch(residual_model, IMAGES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_pairs_round_as_onnx_runtimes(residual_model: onnx.ModelProto, scheme: Scheme) -> None:
    quantized = insert_qdq(residual_model, onnx_graphs.ranges_of(residual_model, IMAGES, scheme), scheme).model
    expected = onnx_graphs.run_model(quantized, IMAGES, exact=True)
    assert onnx_graphs.sqnr_db(expected, run_torch(quantized, IMAGES)) > 40  # a tie or two may round the other way


def test_integers_that_are_read_with_another_scale_are_a_product() -> None:
    constants = {"w": RANDOM.normal(0, 0.4, (8, 4, 3, 3)).astype(np.float32),
                 "v": RANDOM.normal(0, 0.4, (4, 8, 1, 1)).astype(np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("HardSwish", ["c"], ["s"], name="swish"),
        helper.make_node("Conv", ["s", "v"], ["y"], name="last"),
    ]
    model = rewrite_hard_activations(onnx_graphs.make_model(nodes, constants))
    scheme = onnx_graphs.unsigned_scheme()
    quantized = insert_qdq(model, onnx_graphs.ranges_of(model, IMAGES, scheme), scheme).model
    network = OnnxNetwork(quantized)
    assert any(name.endswith("/factor") for name in network._buffer_of)
    expected = onnx_graphs.run_model(quantized, IMAGES, exact=True)
    assert onnx_graphs.sqnr_db(expected, run_torch(quantized, IMAGES)) > 40


def test_an_exported_network_computes_the_same(tmp_path) -> None:
    network = make_lively(Tangle())
    to_onnx(network, tmp_path / "tangle.onnx", 8, 18, None)
    images = IMAGES[:, :3].copy()
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run_torch(onnx.load(tmp_path / "tangle.onnx"), images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one_node("Softsign", ["x"], {}), "the graph has Softsign, which cannot be converted; supported are Add"),
        (one_node("Conv", ["x", "w"], {"w": WEIGHT}, group=2, auto_pad="SAME_UPPER"), "auto_pad cannot be converted"),
        (
            one_node("AveragePool", ["x"], {}, kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
            "uneven, uncounted pads cannot be converted",
        ),
    ],
)
def test_what_can_not_be_converted_is_told(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_torch(model, IMAGES)
