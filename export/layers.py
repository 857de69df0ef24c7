"""Weighted layers of a float32 graph, and integer weights whose sums do not overflow in the runtime's kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.scheme import Sums
from runtimes.errors import InputError

WEIGHTED_OPS = ("Conv", "Gemm")
LINEAR_OPS = (*WEIGHTED_OPS, "ConvTranspose")  # operators whose float weights ONNX Runtime quantizes between Q/DQ pairs
SMALLEST_RANGE = 1e-30  # smaller ranges count as zero: their float32 scales would be subnormal and lose precision

# `vpmaddubsw` adds a0 * q0 + a1 * q1 in int16 with 0 <= a <= 255: 255 * 128 fits in 32,767, 255 * 129 does not.
LARGEST_NEIGHBOUR_SUM = 128
WEIGHTS_AT_ONCE = 1 << 22  # 32 MB as float64
Float64 = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Layer:
    """A 2D Conv or Gemm with constant weights.

    weight: float32 in the file's shape; bias: float64 (O,), zeros where the node has none; axis: the output axis.
    """

    name: str
    op: str
    input: str
    output: str
    weight: npt.NDArray[np.float32]
    bias: Float64
    axis: int
    groups: int
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]

    @property
    def depthwise(self) -> bool:
        """True if every output channel reads one input channel."""
        return self.op == "Conv" and self.groups > 1 and self.weight.shape[:2] == (self.groups, 1)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Spatial size of the weights, (1, 1) for Gemm."""
        return self.weight.shape[2:] if self.op == "Conv" else (1, 1)

    @property
    def inputs(self) -> int:
        """Number of weights of an output channel."""
        return self.weight.size // len(self.bias)

    def rows(self, part: slice = slice(None)) -> Float64:
        """Return the weights as (O, K), K in the kernels' order of summation: (ky, kx, channel). part: of the rows."""
        return to_rows(np.moveaxis(self.weight, self.axis, 0)[part], 0).astype(np.float64)

    def parts(self) -> Iterator[slice]:
        """Yield slices of the rows, so that float64 copies of a part stay small."""
        size = max(1, WEIGHTS_AT_ONCE // self.inputs)
        for start in range(0, len(self.bias), size):
            yield slice(start, min(start + size, len(self.bias)))


@dataclass(frozen=True)
class IntegerWeights:
    """Quantized weights of a layer. integers: int8 in the file's shape; scale, bias: float64 (O,)."""

    integers: npt.NDArray[np.int8]
    scale: Float64
    bias: Float64


def layers_of(model: onnx.ModelProto) -> dict[str, Layer]:
    """Return the layers by node name, in graph order."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if is_layer(node, constants)]
    return {node.name: _layer(node, constants) for node in nodes}


def output_channels(path: Path) -> dict[str, int]:
    """Return the number of output channels of each layer of a float32 file by node name, in graph order."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    channels = {}
    for node in model.graph.node:
        if is_layer(node, constants):
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            axis = 1 if node.op_type == "Gemm" and not transposed else 0
            channels[node.name] = int(constants[node.input[1]].dims[axis])
    return channels


def is_layer(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Return whether integer kernels can compute a node: a 2D Conv, or a Gemm without alpha, beta and transA.

    Its weights and bias are float constants.
    """
    if node.op_type not in WEIGHTED_OPS or bias_of(node, constants) is None:
        return False
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Conv":
        return len(constants[node.input[1]].dims) == 4
    return attributes.get("alpha", 1.0) == 1 and attributes.get("beta", 1.0) == 1 and not attributes.get("transA", 0)


def bias_of(node: NodeProto, constants: Mapping[str, TensorProto]) -> Float64 | None:
    """Return the bias (O,) of one of the `LINEAR_OPS`, zeros if it has none.

    None if weights or bias are no float constants, or the bias is no vector.
    """
    names = [name for name in node.input[1:] if name]
    if not names or any(name not in constants or constants[name].data_type != TensorProto.FLOAT for name in names):
        return None
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    axis = 1 if node.op_type == "ConvTranspose" or (node.op_type == "Gemm" and not attributes.get("transB", 0)) else 0
    outputs = int(constants[names[0]].dims[axis])
    if node.op_type == "ConvTranspose":
        outputs *= attributes.get("group", 1)
    if len(names) == 1:
        return np.zeros(outputs)
    bias = numpy_helper.to_array(constants[names[1]]).astype(np.float64).ravel()
    return np.zeros(outputs) + bias if len(bias) in (1, outputs) else None


def _layer(node: NodeProto, constants: Mapping[str, TensorProto]) -> Layer:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    weight = numpy_helper.to_array(constants[node.input[1]])
    axis = 1 if node.op_type == "Gemm" and not attributes.get("transB", 0) else 0
    bias = bias_of(node, constants)
    assert bias is not None
    return Layer(
        node.name, node.op_type, node.input[0], node.output[0], weight, bias, axis,
        groups=int(attributes.get("group", 1)),
        strides=tuple(attributes.get("strides", (1, 1))),
        pads=_pads(attributes.get("auto_pad", b"NOTSET"), attributes.get("pads", (0, 0, 0, 0)), node.name),
        dilations=tuple(attributes.get("dilations", (1, 1))),
    )  # fmt: skip


def _pads(auto: bytes, pads: tuple[int, ...], name: str) -> tuple[int, int, int, int]:
    if auto not in (b"NOTSET", b"VALID", b""):
        raise InputError(f"{name}: auto_pad {auto.decode()} is not supported; export the model with explicit pads")
    top, left, bottom, right = pads
    return top, left, bottom, right


def to_rows(weight: npt.NDArray[Number], axis: int) -> npt.NDArray[Number]:
    """Return a layer's weights as (O, K) in the order of the reduction: (ky, kx, channel)."""
    moved = np.moveaxis(weight, axis, 0)
    return moved.transpose(0, *range(2, moved.ndim), 1).reshape(len(moved), -1)


def from_rows(rows: npt.NDArray[np.generic], shape: tuple[int, ...], axis: int) -> npt.NDArray[np.generic]:
    """Invert `to_rows`; shape: of the weights in the file."""
    if len(shape) == 2:
        return rows if axis == 0 else rows.T
    outputs, inputs, *kernel = shape
    return rows.reshape(outputs, *kernel, inputs).transpose(0, len(kernel) + 1, *range(1, len(kernel) + 1))


def largest_weight(sums: Sums) -> int:
    """Return the largest allowed absolute value of an integer weight."""
    return LARGEST_NEIGHBOUR_SUM // 2 if sums == "unknown" else 127


def limits_neighbours(layer: Layer, sums: Sums) -> bool:
    """Return whether sums of neighbouring weights are limited to `LARGEST_NEIGHBOUR_SUM`."""
    return sums == "neighbours" and not layer.depthwise


def row_scales(layer: Layer, sums: Sums, input_scale: float) -> Float64:
    """Return a scale per output channel, (O,), such that integer weights and the int32 bias are in range.

    Weights are within +-127. Where neighbours are limited, their rounded sum is within +-128, which
    |w0 + w1| / scale <= 127.5 ensures, as each rounds by at most 0.5. For small weights the scale keeps
    |bias| / (scale * input_scale) below 2**30; for zeros it is 1.
    """
    scale: Float64 = np.concatenate([_largest_scale(layer.rows(part), layer, sums) for part in layer.parts()])
    scale = np.maximum(scale, np.abs(layer.bias) / (input_scale * 2.0**30))
    scale = np.where(scale > SMALLEST_RANGE, scale, 1.0)
    return scale.astype(np.float32).astype(np.float64)  # as stored in the file


def _largest_scale(rows: Float64, layer: Layer, sums: Sums) -> Float64:
    """Return the scale (O,) that the largest weight, or the largest sum of neighbours, of each row needs."""
    scale: Float64 = np.abs(rows).max(axis=1) / largest_weight(sums)
    if limits_neighbours(layer, sums):
        scale = np.maximum(scale, np.abs(neighbour_sums(rows)).max(axis=1) / (LARGEST_NEIGHBOUR_SUM - 0.5))
    return scale


def neighbour_sums(rows: npt.NDArray[np.number]) -> npt.NDArray[np.number]:
    """Return (O, ceil(K / 2)): the sums of the neighbours 2k and 2k + 1 of each row."""
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    sums: npt.NDArray[np.number] = even[:, ::2] + even[:, 1::2]
    return sums


def overflowing_neighbours(layer: Layer, weights: IntegerWeights) -> int:
    """Return the number of weight pairs whose products with uint8 activations can overflow int16."""
    rows = to_rows(weights.integers.astype(np.float64), layer.axis)
    return int((np.abs(neighbour_sums(rows)) > LARGEST_NEIGHBOUR_SUM).sum())


def nearest(layer: Layer, sums: Sums, input_scale: float) -> IntegerWeights:
    """Round a layer's weights to the nearest allowed integers."""
    scale, largest = row_scales(layer, sums, input_scale), largest_weight(sums)
    integers = np.concatenate([
        np.rint(layer.rows(part) / scale[part, None]).clip(-largest, largest).astype(np.int8) for part in layer.parts()
    ])  # fmt: skip
    if limits_neighbours(layer, sums):  # a float32 scale may be slightly too small
        integers[:, 1::2] = within_neighbours(integers[:, 1::2], integers[:, : integers.shape[1] // 2 * 2 : 2])
    return IntegerWeights(np.asarray(from_rows(integers, layer.weight.shape, layer.axis), np.int8), scale, layer.bias)


def within_neighbours(values: npt.NDArray[np.number], before: npt.NDArray[np.number]) -> npt.NDArray[np.number]:
    """Clip integers so that their sums with the neighbours `before` them are within the limit."""
    limit = LARGEST_NEIGHBOUR_SUM
    lowest, highest = (
        np.maximum(-limit - before.astype(np.int32), -127),
        np.minimum(limit - before.astype(np.int32), 127),
    )
    clipped: npt.NDArray[np.number] = np.clip(values, lowest, highest)
    return clipped
