"""Probe whether the integer kernels of this machine saturate, by running them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.quantization.ort_graph import OrtGraph
from export.layers import LARGEST_NEIGHBOUR_SUM, to_rows
from runtimes.lineage import KernelProbe

CHANNELS = (3, 4, 5, 16, 19, 32, 64)
SIDE = 9
OUTPUT_STEPS = 255


def probe() -> KernelProbe:
    """Run ONNX Runtime's kernels on inputs and weights whose sums are the largest possible; report which saturate."""
    dense, depthwise, gemm, limited = False, False, False, True
    for channels in CHANNELS:
        for kernel in (1, 3):
            full = np.full((8, channels, kernel, kernel), 127, np.int8)
            dense |= not _is_exact(full, groups=1)
            limited &= _is_exact(_limited(full.shape), groups=1)
        depthwise |= not _is_exact(np.full((channels, 1, 3, 3), 127, np.int8), groups=channels)
        gemm |= not _is_exact(np.full((8, channels), 127, np.int8), groups=1)
        limited &= _is_exact(_limited((8, channels)), groups=1)
    limited &= _is_exact(_limited((16, 5, 3, 3)), groups=4)
    return KernelProbe(dense, depthwise, gemm, limited)


def _limited(shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """Return weights whose neighbours 2k and 2k + 1 in the order (ky, kx, channel) sum to the limit: 127 and 1, …."""
    inputs = int(np.prod(shape[1:]))
    firsts = np.random.default_rng(0).integers(1, 128, (shape[0], -(-inputs // 2)))
    rows = np.stack([firsts, LARGEST_NEIGHBOUR_SUM - firsts], axis=2).reshape(shape[0], -1)[:, :inputs]
    if len(shape) == 2:
        return rows.astype(np.int8)
    outputs, channels, height, width = shape
    return rows.reshape(outputs, height, width, channels).transpose(0, 3, 1, 2).astype(np.int8)


def _is_exact(weights: npt.NDArray[np.int8], groups: int) -> bool:
    """Return whether the kernel's output for inputs of 255 equals exact integer sums, within one output step."""
    sums = 255 * to_rows(weights.astype(np.float64), 0).sum(axis=1)
    scale = float(np.abs(sums).max()) / OUTPUT_STEPS
    expected = np.rint(sums / scale)
    model = _gemm(weights, scale) if weights.ndim == 2 else _convolution(weights, groups, scale)
    graph = OrtGraph(model, exact=False)
    channels = weights.shape[1] * groups
    shape = (1, channels) if weights.ndim == 2 else (1, channels, SIDE, SIDE)
    output = graph.run({"x": np.full(shape, 255, np.float32)})["y"]
    middle = output[0] if weights.ndim == 2 else output[0, :, SIDE // 2, SIDE // 2]
    return bool(np.abs(middle / np.float32(scale) - expected).max() <= 1)


def _convolution(weights: npt.NDArray[np.int8], groups: int, scale: float) -> onnx.ModelProto:
    half = weights.shape[2] // 2
    node = helper.make_node("Conv", ["x_d", "w_d"], ["c"], group=groups, pads=[half] * 4)
    return _model(node, weights, scale, ["n", weights.shape[1] * groups, SIDE, SIDE])


def _gemm(weights: npt.NDArray[np.int8], scale: float) -> onnx.ModelProto:
    return _model(helper.make_node("Gemm", ["x_d", "w_d"], ["c"], transB=1), weights, scale, ["n", weights.shape[1]])


def _model(
    node: onnx.NodeProto, weights: npt.NDArray[np.int8], scale: float, shape: list[str | int]
) -> onnx.ModelProto:
    """Return a model of one layer between Q/DQ pairs, with uint8 activations and int8 weights of scale 1."""
    constants = {
        "one": np.float32(1), "zero": np.uint8(0), "scale": np.float32(scale), "w": weights,
        "ones": np.ones(len(weights), np.float32), "zeros": np.zeros(len(weights), np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "one", "zero"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["w", "ones", "zeros"], ["w_d"], axis=0),
        node,
        helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
