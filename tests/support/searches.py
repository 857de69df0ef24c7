"""Networks, images and a search for tests of quantization."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
from onnx import helper, numpy_helper

from compress.quantization import post_training
from compress.quantization.config import Quantize
from compress.quantization.float_layers import CompareSpeed, Speed
from compress.quantization.ort_graph import logits
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES
from compress.quantization.search.candidates import Candidate, Search
from runtimes.console import Console, SilentConsole
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def never(*_: object) -> Speed:
    """Return that float layers are slower."""
    return "slower"


def always(*_: object) -> Speed:
    """Return that float layers are as fast."""
    return "alike"


def images(count: int, labels: bool = False) -> EvalSet:
    rng = np.random.default_rng(0)
    pixels = (rng.integers(0, 256, (count, 1, 1, 3)) + rng.normal(0, 30, (count, 8, 8, 3))).clip(0, 255)
    evalset = rng.integers(0, 5, count) if labels else None
    names = tuple(map(str, range(count)))
    return EvalSet(pixels.astype(np.uint8), evalset, names, tuple("abcde"), PREPROCESSING, "digest")


def wide_model(spread: float = 100.0) -> onnx.ModelProto:
    """Return a network whose channels after the first layer differ by the factor `spread`."""
    rng = np.random.default_rng(0)
    size = np.geomspace(1, 1 / spread, 8).astype(np.float32)
    constants = {
        "w1": rng.normal(0, 1, (8, 3, 3, 3)).astype(np.float32) * size[:, None, None, None], "b1": size,
        "w2": rng.normal(0, 1, (8, 8, 1, 1)).astype(np.float32) / size[:, None, None], "b2": np.ones(8, np.float32),
        "w3": rng.normal(0, 1, (5, 8)).astype(np.float32), "b3": np.zeros(5, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second"),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="gemm", transB=1),
    ]
    return onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)


def deep_model(blocks: int = 6, crippled: tuple[int, ...] = ()) -> onnx.ModelProto:
    """Return a chain of 1x1 layers.

    A crippled layer has a weight of a million on an input that is always 0, so that all other weights of its row round
    to 0, even after equalization makes the large one 32 times smaller.
    """
    rng = np.random.default_rng(0)
    constants, nodes, evalset = {}, [], "x"
    for index in range(blocks):
        channels = 3 if index == 0 else 8
        constants[f"w{index}"] = (rng.normal(0, 1, (8, channels, 1, 1)) / np.sqrt(channels)).astype(np.float32)
        constants[f"b{index}"] = rng.normal(0.5, 0.5, 8).astype(np.float32)
        if index in crippled:
            constants[f"b{index - 1}"][0] = -1000
            constants[f"w{index}"][:, 0] = 1e6
        nodes += [
            helper.make_node("Conv", [evalset, f"w{index}", f"b{index}"], [f"c{index}"], name=f"conv{index}"),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"),
        ]
        evalset = f"r{index}"
    constants |= {"w": rng.normal(0, 1, (5, 8)).astype(np.float32), "b": np.zeros(5, np.float32)}
    nodes += [
        helper.make_node("GlobalAveragePool", [evalset], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="gemm", transB=1),
    ]
    model = onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)
    return _centred(model)


def shifted_model(shift: float = 1000.0) -> onnx.ModelProto:
    """Return a network that adds a large number to all features and subtracts it again.

    In 8 bits, the features between both steps are lost.
    """
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.normal(0, 0.5, (8, 3, 1, 1)).astype(np.float32), "b1": rng.normal(0, 0.1, 8).astype(np.float32),
        "w": rng.normal(0, 1, (5, 8)).astype(np.float32), "b": np.zeros(5, np.float32),
        "up": np.asarray(shift, np.float32), "down": np.asarray(-shift, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first"),
        helper.make_node("Add", ["c1", "up"], ["high"], name="shift"),
        helper.make_node("Add", ["high", "down"], ["back"], name="shift_back"),
        helper.make_node("GlobalAveragePool", ["back"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="gemm", transB=1),
    ]
    return _centred(onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2))


def _centred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Set the last layer's biases so that its mean logits are 0 and images have different top-1 classes."""
    mean = logits(model, images(40)).mean(0)
    for tensor in model.graph.initializer:
        if tensor.name == "b":
            tensor.CopyFrom(numpy_helper.from_array(-mean, "b"))
    return model


def search(
    model: onnx.ModelProto | None = None, settings: Quantize | None = None, compare_speed: CompareSpeed = never,
    evalset: EvalSet | None = None, scheme: str = "x86-vnni", console: Console | None = None,
) -> tuple[Candidate, Search]:  # fmt: skip
    request = QuantizationRequest(
        evalset or images(40), SCHEMES[scheme], settings or Quantize(), console or SilentConsole()
    )
    return post_training.quantize(model or onnx_graphs.residual_model(channels=3), request, compare_speed)
