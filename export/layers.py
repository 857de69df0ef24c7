"""Weighted layers of a float32 graph, and their weights as integers whose sums no kernel overflows in silence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper, numpy_helper

from export.scheme import Sums
from runtimes.errors import InputError

WEIGHTED_OPS = ("Conv", "Gemm")
SMALLEST_RANGE = 1e-30  # what is smaller is zero: float32 scales would be subnormal and lose their digits

# `vpmaddubsw` adds a0 * q0 + a1 * q1 in int16 with 0 <= a <= 255: 255 * 128 fits in 32,767, 255 * 129 does not.
LARGEST_NEIGHBOUR_SUM = 128
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A Conv or Gemm with constant weights.

    weight: float64 in the file's shape; bias: float64 (O,), zeros where the node has none; axis: of the outputs.
    """

    name: str
    op: str
    input: str
    output: str
    weight: Float64
    bias: Float64
    axis: int
    groups: int
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]

    @property
    def depthwise(self) -> bool:
        """Tell whether every output channel sees one input channel."""
        return self.op == "Conv" and self.groups > 1 and self.weight.shape[:2] == (self.groups, 1)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Return the spatial size of the weights, (1, 1) for Gemm."""
        return self.weight.shape[2:] if self.op == "Conv" else (1, 1)

    def rows(self) -> Float64:
        """Return the weights as (O, K), K in the order in which kernels sum: (ky, kx, channel)."""
        return to_rows(self.weight, self.axis)


@dataclass(frozen=True)
class IntegerWeights:
    """A layer's weights as the file holds them. integers: int8 in the file's shape; scale, bias: float64 (O,)."""

    integers: npt.NDArray[np.int8]
    scale: Float64
    bias: Float64


def layers_of(model: onnx.ModelProto) -> dict[str, Layer]:
    """Return the layers whose weights are constants, by the name of their node, in the graph's order.

    Raises InputError for a Gemm with alpha, beta or transA.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if is_layer(node, constants)]
    return {node.name: _layer(node, constants) for node in nodes}


def output_channels(path: Path) -> dict[str, int]:
    """Return the number of output channels of each layer of a float32 file, by node, in the graph's order."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if is_layer(node, constants):
            turned = any(one.name == "transB" and one.i for one in node.attribute)
            axis = 1 if node.op_type == "Gemm" and not turned else 0
            found[node.name] = int(constants[node.input[1]].dims[axis])
    return found


def is_layer(node: NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Tell whether a node is a Conv or Gemm with constant weights and bias."""
    return node.op_type in WEIGHTED_OPS and all(name in constants for name in node.input[1:] if name)


def _layer(node: NodeProto, constants: dict[str, onnx.TensorProto]) -> Layer:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    weight = numpy_helper.to_array(constants[node.input[1]]).astype(np.float64)
    axis = 0
    if node.op_type == "Gemm":
        if attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1 or attributes.get("transA", 0):
            raise InputError(f"{node.name}: Gemm with alpha, beta or transA can't be quantized; export the model again")
        axis = 0 if attributes.get("transB", 0) else 1
    elif weight.ndim != 4:
        raise InputError(f"{node.name}: weights of {weight.ndim} dimensions; only convolutions over images are known")
    has_bias = len(node.input) > 2 and bool(node.input[2])
    bias = np.zeros(weight.shape[axis])
    if has_bias:
        bias = bias + numpy_helper.to_array(constants[node.input[2]]).astype(np.float64).ravel()
    return Layer(
        node.name, node.op_type, node.input[0], node.output[0], weight, bias, axis,
        groups=int(attributes.get("group", 1)),
        strides=tuple(attributes.get("strides", (1, 1))),
        pads=_pads(attributes.get("auto_pad", b"NOTSET"), attributes.get("pads", (0, 0, 0, 0)), node.name),
        dilations=tuple(attributes.get("dilations", (1, 1))),
    )  # fmt: skip


def _pads(auto: bytes, pads: tuple[int, ...], name: str) -> tuple[int, int, int, int]:
    if auto not in (b"NOTSET", b"VALID", b""):
        raise InputError(f"{name}: auto_pad {auto.decode()} is not known; export the model with explicit pads")
    top, left, bottom, right = pads
    return top, left, bottom, right


def to_rows(weight: Float64, axis: int) -> Float64:
    """Return a layer's weights as (O, K) in the order of the reduction: (ky, kx, channel)."""
    moved = np.moveaxis(weight, axis, 0)
    return moved.transpose(0, *range(2, moved.ndim), 1).reshape(len(moved), -1)


def from_rows(rows: npt.NDArray[np.generic], shape: tuple[int, ...], axis: int) -> npt.NDArray[np.generic]:
    """Undo `to_rows` for weights of that shape in the file."""
    if len(shape) == 2:
        return rows if axis == 0 else rows.T
    outputs, inputs, *kernel = shape
    return rows.reshape(outputs, *kernel, inputs).transpose(0, len(kernel) + 1, *range(1, len(kernel) + 1))


def largest_weight(sums: Sums) -> int:
    """Return the greatest |integer| that a single weight may have."""
    return LARGEST_NEIGHBOUR_SUM // 2 if sums == "unknown" else 127


def limits_neighbours(layer: Layer, sums: Sums) -> bool:
    """Tell whether neighbours along the reduction may not exceed `LARGEST_NEIGHBOUR_SUM` together."""
    return sums == "neighbours" and not layer.depthwise


def row_scales(layer: Layer, sums: Sums, input_scale: float) -> Float64:
    """Return a scale (O,) per output channel with which the weights and the int32 bias fit.

    Weights fit +-127; where neighbours are limited, their rounded sum fits +-128: |w0 + w1| / scale <= 127.5 does that,
    as each rounds by at most 0.5. A channel of small weights gets a scale that keeps |bias| / (scale * input_scale)
    below 2**30; one of zeros, 1.
    """
    rows = layer.rows()
    scale: Float64 = np.abs(rows).max(axis=1) / largest_weight(sums)
    if limits_neighbours(layer, sums):
        scale = np.maximum(scale, np.abs(neighbour_sums(rows)).max(axis=1) / (LARGEST_NEIGHBOUR_SUM - 0.5))
    scale = np.maximum(scale, np.abs(layer.bias) / (input_scale * 2.0**30))
    scale = np.where(scale > SMALLEST_RANGE, scale, 1.0)
    return scale.astype(np.float32).astype(np.float64)  # what the file will hold


def neighbour_sums(rows: npt.NDArray[np.number]) -> npt.NDArray[np.number]:
    """Return (O, ceil(K / 2)): the sums of the neighbours 2k and 2k + 1 of each row."""
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    sums: npt.NDArray[np.number] = even[:, ::2] + even[:, 1::2]
    return sums


def overflowing_neighbours(layer: Layer, weights: IntegerWeights) -> int:
    """Return how many pairs of a layer's weights could overflow int16 for uint8 activations; 0 is a proof."""
    rows = to_rows(weights.integers.astype(np.float64), layer.axis)
    return int((np.abs(neighbour_sums(rows)) > LARGEST_NEIGHBOUR_SUM).sum())


def nearest(layer: Layer, sums: Sums, input_scale: float) -> IntegerWeights:
    """Round a layer's weights to the nearest integers that the kernel's sums allow."""
    scale, largest = row_scales(layer, sums, input_scale), largest_weight(sums)
    integers = np.rint(layer.rows() / scale[:, None]).clip(-largest, largest).astype(np.int8)
    if limits_neighbours(layer, sums):  # float32 scales may be a hair too small
        integers[:, 1::2] = within_neighbours(integers[:, 1::2], integers[:, : integers.shape[1] // 2 * 2 : 2])
    return IntegerWeights(np.asarray(from_rows(integers, layer.weight.shape, layer.axis), np.int8), scale, layer.bias)


def within_neighbours(values: npt.NDArray[np.number], before: npt.NDArray[np.number]) -> npt.NDArray[np.number]:
    """Clip integers so that with the neighbours that were rounded before them they can't overflow."""
    limit = LARGEST_NEIGHBOUR_SUM
    lowest, highest = (
        np.maximum(-limit - before.astype(np.int32), -127),
        np.minimum(limit - before.astype(np.int32), 127),
    )
    clipped: npt.NDArray[np.number] = np.clip(values, lowest, highest)
    return clipped
