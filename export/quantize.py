"""Q/DQ: the only place that puts QuantizeLinear and DequantizeLinear into a graph.

Activations are uint8 with one scale per tensor, weights int8 with one scale per output channel and zero point 0, biases
int32 at the product of both scales (Jacob et al., CVPR 2018, equations 1 to 7). Every quantized operator stands between
DequantizeLinear and QuantizeLinear, the pattern that runtimes fuse into integer kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from runtimes.errors import CompressError, InputError

WEIGHTED_OPS = ("Conv", "Gemm")
INTEGER_OPS = ("Add", "GlobalAveragePool", "AveragePool", "Concat")  # with integer kernels, besides the weighted ones
SAME_RANGE_OPS = ("MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity")  # values just move
CLAMPING_OPS = ("Relu", "Clip")  # from below at 0: QuantizeLinear with zero point 0 does the same

SMALLEST_RANGE = 1e-30  # what is smaller is zero: float32 scales would be subnormal and lose their digits
Ranges = Mapping[str, tuple[float, float]]  # least and greatest value of each tensor
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scheme:
    """How INT8 is made for an instruction set.

    saturating_weight_max: greatest |weight| of layers whose kernel adds two products in int16 (`vpmaddubsw`): with 64,
    2 * 255 * 64 = 32,640 fits; 127 where sums are exact. Depthwise convolutions use other instructions and keep 127.
    """

    name: str
    saturating_weight_max: int


@dataclass(frozen=True)
class Quantized:
    """A quantized model and what was done. weight_bits: of each layer. float_ops: how many operators stayed float."""

    model: onnx.ModelProto
    weight_bits: dict[str, int]
    float_ops: dict[str, int]


@dataclass(frozen=True)
class _Plan:
    """What is quantized. range_of: quantized tensor to the tensor whose range it takes, in the graph's order.

    clamps: output of each Relu or Clip that goes, to the tensor that is quantized in its place.
    """

    constants: dict[str, TensorProto]
    integer_nodes: frozenset[str]
    range_of: dict[str, str]
    clamps: dict[str, str]


def tensors_to_calibrate(model: onnx.ModelProto) -> list[str]:
    """Return the names of the float tensors whose ranges `insert_qdq` needs; raises InputError as it does."""
    return list(dict.fromkeys(_plan(model).range_of.values()))


def insert_qdq(model: onnx.ModelProto, ranges: Ranges, scheme: Scheme) -> Quantized:
    """Return a quantized copy of a float32 graph with folded BatchNorm; the graph's outputs stay float.

    Raises InputError for a graph that is quantized already or has nothing to quantize.
    """
    plan = _plan(model)
    graph = _Graph({name: _activation_parameters(*ranges[owner]) for name, owner in plan.range_of.items()})
    for value in model.graph.input:
        if value.name in plan.range_of:
            graph.quantize(value.name, value.name)
    for node in model.graph.node:
        _write_node(graph, node, plan, scheme)
    quantized = _assemble(model, graph)
    _check(quantized, plan, graph)
    kept = Counter(node.op_type for node in model.graph.node
                   if node.name not in plan.integer_nodes and node.op_type not in SAME_RANGE_OPS
                   and node.output[0] not in plan.clamps)  # fmt: skip
    return Quantized(quantized, graph.weight_bits, dict(kept))


def _plan(model: onnx.ModelProto) -> _Plan:
    nodes = model.graph.node
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in nodes):
        raise InputError("the model is quantized already; give the float32 model")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    integer = [node for node in nodes if _is_integer(node, constants)]
    if not any(node.op_type in WEIGHTED_OPS for node in integer):
        raise InputError("the model has no Conv or Gemm with constant weights, so there is nothing to quantize")
    chosen = {name for node in integer for name in (*_activations(node), *node.output)}
    for node in nodes:
        if node.op_type in SAME_RANGE_OPS and node.input[0] in chosen:
            chosen.add(node.output[0])
    chosen -= {output.name for output in model.graph.output}
    clamps = _clamps(model, chosen, {name for node in integer for name in node.output}, constants)
    in_order = [value.name for value in model.graph.input] + [name for node in nodes for name in node.output]
    producer = {name: node for node in nodes for name in node.output}
    return _Plan(
        constants=constants,
        integer_nodes=frozenset(node.name for node in integer),
        range_of={name: _range_owner(name, producer) for name in in_order
                  if name in chosen and name not in clamps.values()},
        clamps=clamps,
    )  # fmt: skip


def _is_integer(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    if node.op_type in WEIGHTED_OPS:
        return all(name in constants for name in node.input[1:])
    return node.op_type in INTEGER_OPS and not any(name in constants for name in node.input)


def _activations(node: NodeProto) -> list[str]:
    return list(node.input[:1] if node.op_type in WEIGHTED_OPS else node.input)


def _clamps(
    model: onnx.ModelProto, chosen: set[str], integer_outputs: set[str], constants: Mapping[str, TensorProto]
) -> dict[str, str]:
    """Find each Relu or Clip from 0 whose input comes from an integer operator and goes nowhere else."""
    uses = Counter([name for node in model.graph.node for name in node.input])
    uses.update(output.name for output in model.graph.output)
    found = {}
    for node in model.graph.node:
        if node.op_type not in CLAMPING_OPS or node.output[0] not in chosen:
            continue
        lower = 0.0
        if node.op_type == "Clip":
            bound = constants.get(node.input[1]) if len(node.input) > 1 else None
            lower = float("nan") if bound is None else float(numpy_helper.to_array(bound))
        if lower == 0 and node.input[0] in integer_outputs and uses[node.input[0]] == 1:
            found[node.output[0]] = node.input[0]
    return found


def _range_owner(name: str, producer: Mapping[str, NodeProto]) -> str:
    """Follow operators that only move values back to the tensor where the values arise."""
    while name in producer and producer[name].op_type in SAME_RANGE_OPS:
        name = producer[name].input[0]
    return name


@dataclass
class _Graph:
    """The graph as it is written: nodes in topological order, new constants, names of dequantized tensors."""

    parameters: dict[str, tuple[float, int]]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    dequantized: dict[str, str] = field(default_factory=dict)
    weight_bits: dict[str, int] = field(default_factory=dict)

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def quantize(self, name: str, source: str) -> None:
        """Put a Q/DQ pair behind `source`; readers of `name` read the dequantized tensor. Scales are 0-d."""
        scale, zero_point = self.parameters[name]
        pair = [self.constant(f"{name}_scale", np.asarray(scale, np.float32)),
                self.constant(f"{name}_zero_point", np.asarray(zero_point, np.uint8))]  # fmt: skip
        self.nodes.append(
            helper.make_node("QuantizeLinear", [source, *pair], [f"{name}_quantized"], name=f"{name}_QuantizeLinear")
        )
        self.nodes.append(helper.make_node(
            "DequantizeLinear", [f"{name}_quantized", *pair], [f"{name}_dequantized"], name=f"{name}_DequantizeLinear"
        ))  # fmt: skip
        self.dequantized[name] = f"{name}_dequantized"

    def dequantize_constant(self, name: str, values: npt.NDArray[np.generic], scale: Float64, axis: int) -> str:
        """Store integers with one scale per index of `axis` and zero point 0; return the dequantized tensor's name."""
        inputs = [self.constant(f"{name}_quantized", values),
                  self.constant(f"{name}_scale", scale.astype(np.float32)),
                  self.constant(f"{name}_zero_point", np.zeros(len(scale), values.dtype))]  # fmt: skip
        output = f"{name}_dequantized"
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [output], name=f"{name}_DequantizeLinear", axis=axis)
        )
        return output


def _write_node(graph: _Graph, node: NodeProto, plan: _Plan, scheme: Scheme) -> None:
    if node.output[0] in plan.clamps:
        graph.quantize(node.output[0], plan.clamps[node.output[0]])
        return
    copy = NodeProto()
    copy.CopyFrom(node)
    if node.name in plan.integer_nodes and node.op_type in WEIGHTED_OPS:
        _quantize_weights(graph, copy, plan, scheme)
    for index, name in enumerate(node.input):
        if name in graph.dequantized:
            copy.input[index] = graph.dequantized[name]
    graph.nodes.append(copy)
    for name in node.output:
        if name in plan.range_of:
            graph.quantize(name, name)


def _quantize_weights(graph: _Graph, node: NodeProto, plan: _Plan, scheme: Scheme) -> None:
    """Replace a layer's weight and bias by dequantized integers; names carry the layer's, constants may be shared."""
    weight = numpy_helper.to_array(plan.constants[node.input[1]]).astype(np.float64)
    axis = _output_axis(node)
    largest = 127 if _is_depthwise(node, weight) else scheme.saturating_weight_max
    graph.weight_bits[node.name] = 8 if largest == 127 else 7
    input_scale = graph.parameters[node.input[0]][0]
    has_bias = len(node.input) > 2 and bool(node.input[2])
    bias = numpy_helper.to_array(plan.constants[node.input[2]]).astype(np.float64) if has_bias else None
    scale = weight_scales(weight, axis, largest, bias, input_scale)
    shape = [-1 if dimension == axis else 1 for dimension in range(weight.ndim)]
    integers = np.rint(weight / scale.reshape(shape)).clip(-largest, largest).astype(np.int8)
    node.input[1] = graph.dequantize_constant(f"{node.name}_weight", integers, scale, axis)
    if bias is not None:
        bias_scale = scale * input_scale
        node.input[2] = graph.dequantize_constant(
            f"{node.name}_bias", np.rint(bias / bias_scale).astype(np.int32), bias_scale, 0
        )


def weight_scales(weight: Float64, axis: int, largest: int, bias: Float64 | None, input_scale: float) -> Float64:
    """Return one scale per output channel, so that weights fit +-largest and the int32 bias does not overflow.

    A channel of small weights gets a scale that keeps |bias| / (scale * input_scale) below 2**30; one of zeros, 1.
    """
    others = tuple(dimension for dimension in range(weight.ndim) if dimension != axis)
    scale: Float64 = np.abs(weight).max(axis=others) / largest
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (input_scale * 2.0**30))
    scale = np.where(scale > SMALLEST_RANGE, scale, 1.0)
    return scale.astype(np.float32).astype(np.float64)  # what the file will hold


def _activation_parameters(low: float, high: float) -> tuple[float, int]:
    """Return (scale, zero point) of uint8 for a range, which is widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < SMALLEST_RANGE:
        return 1.0, 0
    steps = 255
    if abs((-low / (high - low) * steps) % 1 - 0.5) < 1e-3:
        steps = 254  # 0 would fall between two integers, and with it every pixel of an image: all ties in rounding
    scale = float(np.float32((high - low) / steps))
    return scale, int(np.rint(-low / scale).clip(0, 255))


def _output_axis(node: NodeProto) -> int:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0
    if attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1 or attributes.get("transA", 0):
        raise InputError(f"{node.name}: Gemm with alpha, beta or transA can't be quantized; export the model again")
    return 0 if attributes.get("transB", 0) else 1


def _is_depthwise(node: NodeProto, weight: Float64) -> bool:
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "Conv" and groups == weight.shape[0] and weight.shape[1] == 1 and groups > 1


def _assemble(model: onnx.ModelProto, graph: _Graph) -> onnx.ModelProto:
    """Put the written nodes into a copy of the model; constants that nothing reads any more are left out."""
    used = {name for node in graph.nodes for name in node.input}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(graph.nodes)
    result.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in used)
    result.graph.initializer.extend(graph.constants)
    return result


def _check(model: onnx.ModelProto, plan: _Plan, graph: _Graph) -> None:
    """The pairs in the file are the planned ones, and the file is valid."""
    onnx.checker.check_model(model, full_check=True)
    count = Counter(node.op_type for node in model.graph.node)
    activations, constants = len(plan.range_of), sum(tensor.name.endswith("_quantized") for tensor in graph.constants)
    if (count["QuantizeLinear"], count["DequantizeLinear"]) != (activations, activations + constants):
        raise CompressError(
            f"planned {activations} QuantizeLinear and {activations + constants} DequantizeLinear, the graph has "
            f"{count['QuantizeLinear']} and {count['DequantizeLinear']}"
        )
