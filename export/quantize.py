"""Insert QuantizeLinear and DequantizeLinear (Q/DQ) into a graph; no other module does.

Activations have one scale per tensor. Weights have one per output channel and zero point 0. Biases are int32 with the
product of both scales, or float (Jacob et al., CVPR 2018, equations 1 to 7). `export.plan` decides on the placement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.layers import LINEAR_OPS, SMALLEST_RANGE, IntegerWeights, Layer, bias_of, layers_of, nearest
from export.plan import QuantizationPlan, is_number, moves_values, plan_quantization
from export.rewrites.hard_sigmoids import with_hard_sigmoids
from export.scheme import Scheme
from runtimes.errors import CompressError, InputError

Ranges = Mapping[str, tuple[float, float]]  # minimum and maximum of each tensor
Float64 = npt.NDArray[np.float64]

QUANTIZED, DEQUANTIZED = "_quantized", "_dequantized"  # suffixes of a tensor's name


@dataclass(frozen=True)
class Quantized:
    """A quantized model with its plan and scheme.

    weights: of each integer layer. scales: (scale, zero point) of each tensor that is read as integers.
    float_ops: number of operators left in float, by type.
    """

    model: onnx.ModelProto
    plan: QuantizationPlan
    weights: dict[str, IntegerWeights]
    scales: dict[str, tuple[float, int]]
    float_ops: dict[str, int]
    scheme: Scheme


def insert_qdq(
    model: onnx.ModelProto,
    ranges: Ranges,
    scheme: Scheme,
    weights: Mapping[str, IntegerWeights] | None = None,
    float_nodes: frozenset[str] = frozenset(),
) -> Quantized:
    """Return a quantized copy of a float32 graph with folded BatchNorm; the graph's outputs stay float.

    weights: of layers that are already rounded; the others are rounded to nearest. float_nodes: names of operators left
    in float. Raises InputError for a quantized graph, a graph with nothing to quantize, or one with constants whose
    names the quantized graph needs.
    """
    plan = plan_quantization(model, scheme, float_nodes)
    scales = {name: activation_scale(*ranges[owner], scheme.signed) for name, owner in plan.range_of.items()}
    for node in model.graph.node:  # with equal scales, ONNX Runtime would move integers
        if moves_values(node) and node.name in float_nodes and node.output[0] in scales:
            scale, zero_point = scales[node.output[0]]
            scales[node.output[0]] = float(np.nextafter(np.float32(scale), np.float32(np.inf))), zero_point
    for name, (source, factor) in plan.rescaled.items():
        scales[name] = float(np.float32(scales[source][0] * factor)), scales[source][1]
    layers = {name: layer for name, layer in layers_of(model).items() if name in plan.integer_nodes}
    rounded = {
        name: (weights or {}).get(name) or nearest(layer, scheme.sums, scales[layer.input][0])
        for name, layer in layers.items()
    }
    numbers = {tensor.name: float(numpy_helper.to_array(tensor))
               for tensor in model.graph.initializer if is_number(tensor)}  # fmt: skip
    graph = _Graph(scheme, scales, layers, rounded, numbers, _float_biases(model, layers))
    for value in model.graph.input:
        if value.name in plan.range_of:
            graph.quantize(value.name, value.name)
    for node in model.graph.node:
        _write_node(graph, node, plan)
    if scheme.placement == "every-operator":
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        graph.nodes = with_hard_sigmoids(graph.nodes, constants, {output.name for output in model.graph.output})
    quantized = _assemble(model, graph)
    _check(quantized, plan)
    float_ops = Counter(node.op_type for node in model.graph.node
                   if node.name not in plan.integer_nodes and not moves_values(node)
                   and node.output[0] not in {**plan.clamps, **plan.rescaled})  # fmt: skip
    return Quantized(quantized, plan, rounded, scales, dict(float_ops), scheme)


def replace_weights(quantized: Quantized, layer: Layer, weights: IntegerWeights, int32_bias: bool) -> None:
    """Replace the integers, scales and bias of a layer of a quantized model, in place."""
    quantized.weights[layer.name] = weights
    constants = _weight_constants(layer, weights, quantized.scales[layer.input][0], int32_bias)
    replacements = {tensor.name: tensor for tensor in constants}
    for tensor in quantized.model.graph.initializer:
        if tensor.name in replacements:
            tensor.CopyFrom(replacements[tensor.name])


def activation_scale(low: float, high: float, signed: bool) -> tuple[float, int]:
    """Return (scale, zero point) for a range: uint8 for the range extended to 0, or int8 with zero point 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < SMALLEST_RANGE:
        return 1.0, 0
    if signed:
        return float(np.float32(max(-low, high) / 127)), 0
    steps = 255
    if abs((-low / (high - low) * steps) % 1 - 0.5) < 1e-3:
        steps = (
            254  # otherwise 0 lies halfway between two integers, and so does every pixel value: all ties in rounding
        )
    scale = float(np.float32((high - low) / steps))
    return scale, int(np.rint(-low / scale).clip(0, 255))


def _float_biases(model: onnx.ModelProto, layers: Mapping[str, Layer]) -> dict[str, Float64]:
    """Return the biases of the nodes with constant weights that stay float, by name."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    biases = {node.name: bias_of(node, constants) for node in model.graph.node
              if node.op_type in LINEAR_OPS and node.name not in layers}  # fmt: skip
    return {name: bias for name, bias in biases.items() if bias is not None}


@dataclass
class _Graph:
    """The graph under construction: nodes in topological order, new constants, names of dequantized tensors."""

    scheme: Scheme
    scales: dict[str, tuple[float, int]]
    layers: dict[str, Layer]
    weights: dict[str, IntegerWeights]
    numbers: dict[str, float]
    float_biases: dict[str, Float64]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    dequantized: dict[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> type[np.int8] | type[np.uint8]:
        """Type of quantized activations."""
        return np.int8 if self.scheme.signed else np.uint8

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        """Add a constant; return its name."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def quantize(self, name: str, source: str) -> None:
        """Add a Q/DQ pair after `source`; readers of `name` read the dequantized tensor. Scales are 0-d."""
        scale, zero_point = self.scales[name]
        pair = [self.constant(f"{name}_scale", np.asarray(scale, np.float32)),
                self.constant(f"{name}_zero_point", np.asarray(zero_point, self.dtype))]  # fmt: skip
        output, quantized = f"{name}{DEQUANTIZED}", f"{name}{QUANTIZED}"
        self.nodes += [
            helper.make_node("QuantizeLinear", [source, *pair], [quantized], name=f"{name}_QuantizeLinear"),
            helper.make_node("DequantizeLinear", [quantized, *pair], [output], name=f"{name}_DequantizeLinear"),
        ]
        self.dequantized[name] = output

    def rescale(self, name: str, source: str) -> None:
        """Make readers of `name` read the integers of `source` with the scale of `name`."""
        inputs = [f"{source}{QUANTIZED}", self.constant(f"{name}_scale", np.asarray(self.scales[name][0], np.float32)),
                  f"{source}_zero_point"]  # fmt: skip
        output = f"{name}{DEQUANTIZED}"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=f"{name}_DequantizeLinear"))
        self.dequantized[name] = output

    def dequantize_number(self, name: str, value: float) -> str:
        """Store a scalar as the integer 1 step from its zero point; return the dequantized tensor's name."""
        integer, zero_point = (1, 0) if value > 0 else (0, 1)
        inputs = [self.constant(f"{name}{QUANTIZED}", np.asarray(integer, self.dtype)),
                  self.constant(f"{name}_scale", np.asarray(abs(value), np.float32)),
                  self.constant(f"{name}_zero_point", np.asarray(zero_point, self.dtype))]  # fmt: skip
        output = f"{name}{DEQUANTIZED}"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=f"{name}_DequantizeLinear"))
        return output

    def dequantize_constant(self, name: str, axis: int) -> str:
        """Add a DequantizeLinear, with a scale per index of `axis`, for constants of `_weight_constants`."""
        inputs = [f"{name}{QUANTIZED}", f"{name}_scale", f"{name}_zero_point"]
        output = f"{name}{DEQUANTIZED}"
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [output], name=f"{name}_DequantizeLinear", axis=axis)
        )
        return output


def _write_node(graph: _Graph, node: NodeProto, plan: QuantizationPlan) -> None:
    if node.output[0] in plan.clamps:
        graph.quantize(node.output[0], plan.clamps[node.output[0]])
        return
    if node.output[0] in plan.rescaled:
        graph.rescale(node.output[0], plan.rescaled[node.output[0]][0])
        return
    copy = NodeProto()
    copy.CopyFrom(node)
    for index, name in enumerate(node.input):
        if name in graph.dequantized and (node.name, index) not in plan.raw_reads:
            copy.input[index] = graph.dequantized[name]
    if node.name in graph.layers:
        _use_integers(graph, copy)
    elif node.name in graph.float_biases and copy.input[0] != node.input[0]:
        _keep_float(graph, copy)
    elif node.name in plan.integer_nodes:
        for index, name in enumerate(node.input):
            if name in graph.numbers:
                copy.input[index] = graph.dequantize_number(f"{node.name}_number", graph.numbers[name])
    graph.nodes.append(copy)
    for name in node.output:
        if name in plan.range_of:
            graph.quantize(name, name)


def _use_integers(graph: _Graph, node: NodeProto) -> None:
    """Make a layer's node read its dequantized integers, named after the layer, as constants may be shared."""
    layer, weights = graph.layers[node.name], graph.weights[node.name]
    constants = _weight_constants(layer, weights, graph.scales[layer.input][0], graph.scheme.int32_bias)
    graph.constants += constants
    node.input[1] = graph.dequantize_constant(f"{layer.name}_weight", layer.axis)
    del node.input[2:]
    name = f"{layer.name}_bias"  # zeros if the node has none, so that bias correction always has a bias
    node.input.append(graph.dequantize_constant(name, 0) if graph.scheme.int32_bias else f"{name}_float")


def _keep_float(graph: _Graph, node: NodeProto) -> None:
    """Give a float layer between Q/DQ pairs a dequantized bias, so that ONNX Runtime does not quantize its weights.

    Its `WeightBiasQuantization` silently does so, per tensor, where weight and bias are float constants. 24 bits with a
    scale per element are lossless.
    """
    bias, name = graph.float_biases[node.name], f"{node.name}_bias"
    scale = np.where(np.abs(bias) < SMALLEST_RANGE, 1.0, np.abs(bias) / 2.0**24).astype(np.float32)
    graph.constant(f"{name}{QUANTIZED}", np.rint(bias / scale).astype(np.int32))
    graph.constant(f"{name}_scale", scale)
    graph.constant(f"{name}_zero_point", np.zeros(len(scale), np.int32))
    del node.input[2:]
    node.input.append(graph.dequantize_constant(name, 0))


def _weight_constants(layer: Layer, weights: IntegerWeights, input_scale: float, int32_bias: bool) -> list[TensorProto]:
    """Return the constants of a layer: integers, scale and zero point of its weights and of its bias."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        f"weight{QUANTIZED}": weights.integers,
        "weight_scale": weights.scale.astype(np.float32),
        "weight_zero_point": np.zeros(len(weights.scale), np.int8),
    }
    if int32_bias:
        scale = weights.scale * input_scale
        arrays |= {
            f"bias{QUANTIZED}": np.rint(weights.bias / scale).astype(np.int32),
            "bias_scale": scale.astype(np.float32),
            "bias_zero_point": np.zeros(len(scale), np.int32),
        }
    else:
        arrays["bias_float"] = weights.bias.astype(np.float32)
    return [numpy_helper.from_array(np.ascontiguousarray(value), f"{layer.name}_{name}")
            for name, value in arrays.items()]  # fmt: skip


def _assemble(model: onnx.ModelProto, graph: _Graph) -> onnx.ModelProto:
    """Return a copy of the model with the new nodes, without unused constants."""
    used = {name for node in graph.nodes for name in node.input} | {output.name for output in model.graph.output}
    names = Counter([name for node in graph.nodes for name in node.output if name])
    names.update({tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input})
    names.update({tensor.name for tensor in graph.constants})
    conflicts = sorted(name for name, count in names.items() if count > 1)
    if conflicts:
        raise InputError(f"the model has a tensor named '{conflicts[0]}', which the quantized model needs; rename it")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(graph.nodes)
    for tensor in (*model.graph.initializer, *graph.constants):
        if tensor.name in used:
            result.graph.initializer.append(tensor)
    return result


def _check(model: onnx.ModelProto, plan: QuantizationPlan) -> None:
    """Raise CompressError unless the graph has the planned Q/DQ pairs; raise ONNX's error for an invalid graph."""
    onnx.checker.check_model(model, full_check=True)
    constants = {tensor.name for tensor in model.graph.initializer}
    written = [
        node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    ]  # twice for rescaled tensors
    counts = Counter(node.op_type for node in model.graph.node)["QuantizeLinear"], len(set(written) - constants)
    if counts != (len(plan.range_of), len(plan.range_of)):
        raise CompressError(
            f"planned {len(plan.range_of)} pairs of Q and DQ, the graph has {counts[0]} and {counts[1]}"
        )
