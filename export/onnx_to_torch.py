"""Convert a classifier's ONNX graph to a PyTorch module, for converters that read PyTorch; Q/DQ pairs are kept.

All integers are int8 here; uint8 is shifted by 128, which is the same arithmetic. Weights are float constants with
their own Q/DQ pair, from which a converter recovers the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401 (registers torch.ops.quantized_decomposed)
from torch.nn import functional

from runtimes.errors import InputError

SMALLEST, LARGEST = -128, 127
Array = npt.NDArray[Any]


class OnnxNetwork(nn.Module):
    """Module that computes an ONNX graph of standard operators: (N, C, H, W) float32 to (N, classes) float32."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Read a graph with one input and one output; raises InputError for an unsupported operator."""
        super().__init__()
        unknown = sorted(
            {node.op_type for node in model.graph.node} - {*OPERATORS, "QuantizeLinear", "DequantizeLinear"}
        )
        if unknown:
            raise InputError(
                f"the graph has {', '.join(unknown)}, which cannot be converted; supported are {', '.join(OPERATORS)}"
            )
        self._input, self._output = model.graph.input[0].name, model.graph.output[0].name
        self._nodes = list(model.graph.node)
        self._arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._buffer_of: dict[str, str] = {}
        self._written = {node.output[0]: node for node in self._nodes if node.op_type == "QuantizeLinear"}
        for node in self._nodes:
            self._keep_constants(node)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images."""
        tensors = {self._input: images}
        for node in self._nodes:
            if node.op_type == "QuantizeLinear":
                tensors[node.output[0]] = _quantize(tensors[node.input[0]], *self._scale(node))
            elif node.op_type == "DequantizeLinear":
                tensors[node.output[0]] = self._dequantize(node, tensors)
            else:
                inputs = [self._read(name, tensors) if name else None for name in node.input]
                tensors[node.output[0]] = OPERATORS[node.op_type](_Attributes(node, self._arrays), inputs)
        return tensors[self._output]

    def _keep_constants(self, node: NodeProto) -> None:
        """Register a node's constants as buffers: converters need named tensors, not ones created in forward."""
        if node.op_type == "DequantizeLinear" and node.input[0] in self._arrays:
            self._keep(node.output[0], _dequantized(node, self._arrays).astype(np.float32))
            if self._arrays[node.input[1]].ndim:
                self._keep(f"{node.output[0]}/scale", self._arrays[node.input[1]].astype(np.float64))
                self._keep(f"{node.output[0]}/zero_point", np.zeros(self._arrays[node.input[1]].shape, np.int64))
        elif node.op_type == "DequantizeLinear" and self._factor(node) != 1:
            self._keep(f"{node.output[0]}/factor", np.asarray(self._factor(node), np.float32))
        for name in node.input:
            if name in self._arrays and self._arrays[name].dtype == np.float32 and not node.op_type.endswith("Linear"):
                self._keep(name, self._arrays[name])

    def _keep(self, name: str, value: Array) -> None:
        if name not in self._buffer_of:
            self._buffer_of[name] = f"constant_{len(self._buffer_of)}"
            self.register_buffer(self._buffer_of[name], torch.from_numpy(value.copy()))

    def _constant(self, name: str) -> Tensor:
        constant: Tensor = getattr(self, self._buffer_of[name])
        return constant

    def _read(self, name: str, tensors: dict[str, Tensor]) -> Tensor | None:
        """Return a tensor, None for integers such as axes, which operators read from the file."""
        if name in tensors:
            return tensors[name]
        return self._constant(name) if name in self._buffer_of else None

    def _scale(self, node: NodeProto) -> tuple[float, int]:
        """Return (scale, zero point in int8) of a Q or DQ of activations."""
        scale, zero_point = (self._arrays[name] for name in node.input[1:3])
        return float(scale), int(zero_point) - (128 if zero_point.dtype == np.uint8 else 0)

    def _factor(self, node: NodeProto) -> float:
        """Return the ratio of the scale of a DequantizeLinear to the scale that its input was quantized with."""
        return self._scale(node)[0] / self._scale(self._written[node.input[0]])[0]

    def _dequantize(self, node: NodeProto, tensors: dict[str, Tensor]) -> Tensor:
        if node.input[0] not in self._arrays:
            return self._dequantize_activation(node, tensors[node.input[0]])
        constant, integers = self._constant(node.output[0]), self._arrays[node.input[0]]
        if integers.dtype == np.int32:  # a bias; converters compute its scale themselves
            return constant
        if not self._arrays[node.input[1]].ndim:
            return _pair(constant, *self._scale(node))
        axis = {attribute.name: attribute.i for attribute in node.attribute}.get("axis", 1)
        scale, zero_point = (self._constant(f"{node.output[0]}/{name}") for name in ("scale", "zero_point"))
        sides = (scale, zero_point, axis, -LARGEST, LARGEST, torch.int8)
        ops = torch.ops.quantized_decomposed
        weight: Tensor = ops.dequantize_per_channel(ops.quantize_per_channel(constant, *sides), *sides)
        return weight

    def _dequantize_activation(self, node: NodeProto, integers: Tensor) -> Tensor:
        scale, zero_point = self._scale(self._written[node.input[0]])
        value = _dequantize(integers, scale, zero_point)
        if self._factor(node) == 1:
            return value
        # Reading the integers with another scale is a product with a scalar, which is exact in integers, too.
        factor = _pair(self._constant(f"{node.output[0]}/factor"), self._factor(node), 0)
        return _pair(value * factor, *self._scale(node))


def _quantize(value: Tensor, scale: float, zero_point: int) -> Tensor:
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor
    integers: Tensor = quantize(value, scale, zero_point, SMALLEST, LARGEST, torch.int8)
    return integers


def _dequantize(integers: Tensor, scale: float, zero_point: int) -> Tensor:
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor
    value: Tensor = dequantize(integers, scale, zero_point, SMALLEST, LARGEST, torch.int8)
    return value


def _pair(value: Tensor, scale: float, zero_point: int) -> Tensor:
    return _dequantize(_quantize(value, scale, zero_point), scale, zero_point)


def _dequantized(node: NodeProto, arrays: dict[str, Array]) -> Array:
    """Return the output of a DequantizeLinear of constants."""
    integers, scale, zero_point = (arrays[name].astype(np.float64) for name in node.input)
    if not scale.ndim:
        return np.asarray((integers - zero_point) * scale)
    axis = {attribute.name: attribute.i for attribute in node.attribute}.get("axis", 1)
    sides = [1] * integers.ndim
    sides[axis if integers.ndim > 1 else 0] = -1
    return np.asarray((integers - zero_point.reshape(sides)) * scale.reshape(sides))


class _Attributes:
    """Attributes of a node and the constants among its inputs."""

    def __init__(self, node: NodeProto, arrays: dict[str, Array]) -> None:
        self._values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        self._arrays, self._inputs, self._name = arrays, list(node.input), node.name or node.op_type

    def get(self, name: str, default: Any) -> Any:  # Any: an ONNX attribute is a number, text or list
        """Return the value of an attribute."""
        return self._values.get(name, default)

    def number(self, index: int) -> float | None:
        """Return a constant scalar input, None if the node has no such input."""
        if index >= len(self._inputs) or not self._inputs[index]:
            return None
        return float(self._array(index))

    def sizes(self, index: int) -> list[int]:
        """Return a constant input as integers."""
        return [int(size) for size in self._array(index)]

    def _array(self, index: int) -> Array:
        if self._inputs[index] not in self._arrays:
            raise InputError(f"{self._name}: input {index} is not a constant, which cannot be converted")
        return self._arrays[self._inputs[index]]

    def padding(self, value: Tensor, fill: float) -> tuple[Tensor, list[int]]:
        """Return (input, symmetric padding); uneven padding is applied to the input and returned as 0."""
        if self.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", b""):
            raise InputError(f"{self._name}: auto_pad cannot be converted; export the model with explicit pads")
        top, left, bottom, right = self.get("pads", [0, 0, 0, 0])
        if (top, left) == (bottom, right):
            return value, [top, left]
        return functional.pad(value, (left, right, top, bottom), value=fill), [0, 0]


Operator = Callable[[_Attributes, list[Any]], Tensor]


def _conv(node: _Attributes, inputs: list[Any]) -> Tensor:
    value, padding = node.padding(inputs[0], 0.0)
    bias = inputs[2] if len(inputs) > 2 else None
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    return functional.conv2d(value, inputs[1], bias, strides, padding, dilations, node.get("group", 1))


def _gemm(node: _Attributes, inputs: list[Any]) -> Tensor:
    if node.get("alpha", 1.0) != 1 or node.get("beta", 1.0) != 1 or node.get("transA", 0):
        raise InputError("a Gemm with alpha, beta or transA cannot be converted; export the model without them")
    weight = inputs[1] if node.get("transB", 0) else inputs[1].t()
    return functional.linear(inputs[0], weight, inputs[2] if len(inputs) > 2 else None)


def _clip(node: _Attributes, inputs: list[Any]) -> Tensor:
    low, high = node.number(1), node.number(2)
    return functional.relu6(inputs[0]) if (low, high) == (0, 6) else inputs[0].clamp(low, high)


def _hard_sigmoid(node: _Attributes, inputs: list[Any]) -> Tensor:
    scaled: Tensor = inputs[0] * node.get("alpha", 0.2) + node.get("beta", 0.5)
    return scaled.clamp(0, 1)


def _max_pool(node: _Attributes, inputs: list[Any]) -> Tensor:
    value, padding = node.padding(inputs[0], float("-inf"))
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    ceil = bool(node.get("ceil_mode", 0))
    return functional.max_pool2d(value, node.get("kernel_shape", None), strides, padding, dilations, ceil)


def _average_pool(node: _Attributes, inputs: list[Any]) -> Tensor:
    count_pads = bool(node.get("count_include_pad", 0))
    value, padding = node.padding(inputs[0], 0.0)
    if value is not inputs[0] and not count_pads:
        raise InputError("an AveragePool with uneven, uncounted pads cannot be converted; export with even pads")
    ceil = bool(node.get("ceil_mode", 0))
    return functional.avg_pool2d(
        value, node.get("kernel_shape", None), node.get("strides", [1, 1]), padding, ceil, count_pads
    )


def _reshape(node: _Attributes, inputs: list[Any]) -> Tensor:
    sizes = node.sizes(1)
    if len(sizes) == 2:  # in a classifier: keep the batch, flatten the rest
        flat: Tensor = inputs[0].flatten(1)
        return flat
    reshaped: Tensor = inputs[0].reshape(
        [inputs[0].shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    )
    return reshaped


OPERATORS: dict[str, Operator] = {
    "Add": lambda node, inputs: inputs[0] + inputs[1],
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(inputs, node.get("axis", 1)),
    "Conv": _conv,
    "Div": lambda node, inputs: inputs[0] / inputs[1],
    "Flatten": lambda node, inputs: inputs[0].flatten(node.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, inputs: inputs[0].mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node, inputs: functional.hardswish(inputs[0]),
    "Identity": lambda node, inputs: inputs[0],
    "MaxPool": _max_pool,
    "Mul": lambda node, inputs: inputs[0] * inputs[1],
    "Relu": lambda node, inputs: functional.relu(inputs[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda node, inputs: inputs[0].sigmoid(),
    "Sub": lambda node, inputs: inputs[0] - inputs[1],
}
