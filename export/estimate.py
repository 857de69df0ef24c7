"""Estimate the latency of an ONNX classifier on a device from its data sheet, with the roofline model.

    latency = sum over kernels of  max(2 MACs / (peak * efficiency), bytes / (bandwidth * efficiency)) + launch overhead

This is the roofline model (Williams, Waterman, Patterson, CACM 2009) with an overhead per kernel. A kernel is an
operator together with the elementwise operators that engines fuse into it; its bytes are its weights, inputs and
outputs, all of which are assumed to come from and go to memory.

Accuracy: against published latencies of six engines on a Jetson Orin Nano (TensorRT 10.3, batch 1: ResNet-18, ResNet-50
and MobileNetV2 in float16 and INT8) the error is at most ERROR_BOUND: -22 % for MobileNetV2 in INT8, -2 to +9 % for the
others. The launch overhead was fitted to these figures, so expect larger errors elsewhere, up to a factor of 2.5: the
model ignores caches (on an L4, whose 48 MB hold all activations, ResNet-50 is published at 0.27 ms and estimated at
0.60 ms), kernels that suit a shape badly, and clocks. Use it to choose candidates, and measure those.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, shape_inference

from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.files import Json
from runtimes.target import DataSheet, Precision, Target

ERROR_BOUND = 0.25  # of the published latency; tests/export/test_estimate.py asserts it and prints every error
LABEL = "estimate, not measured"

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FREE = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Constant", "Shape",
        "QuantizeLinear", "DequantizeLinear")  # fmt: skip
ELEMENTWISE = ("Add", "Mul", "Sub", "Div", "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish",
               "Swish", "Gelu", "Erf", "Tanh", "BatchNormalization")  # fmt: skip
BYTES = {"float32": 4, "float16": 2, "int8": 1}
Bound = Literal["arithmetic", "memory", "launch"]


@dataclass(frozen=True)
class LayerEstimate:
    """One kernel: an operator and the operators fused into it.

    macs: multiply-accumulates of the whole batch. The latency is max(arithmetic_ms, memory_ms) + launch_ms.
    """

    name: str
    op: str
    precision: Precision
    macs: int
    weight_bytes: int
    activation_bytes: int
    arithmetic_ms: float
    memory_ms: float
    launch_ms: float

    @property
    def latency_ms(self) -> float:
        """Estimated latency in milliseconds."""
        return max(self.arithmetic_ms, self.memory_ms) + self.launch_ms

    @property
    def bound(self) -> Bound:
        """The limit of the kernel: arithmetic, memory or launch."""
        if self.launch_ms > max(self.arithmetic_ms, self.memory_ms):
            return "launch"
        return "arithmetic" if self.arithmetic_ms > self.memory_ms else "memory"


@dataclass(frozen=True)
class LatencyEstimate:
    """Estimated latency of an artifact on a device. batch: images per call. label: marks it as not measured."""

    artifact: str
    device: str
    batch: int
    layers: tuple[LayerEstimate, ...]
    label: str = LABEL

    @property
    def latency_ms(self) -> float:
        """Estimated milliseconds per call."""
        return sum(layer.latency_ms for layer in self.layers)

    def share(self, bound: Bound) -> float:
        """Return the share of the latency (0 to 1) in layers with that bound."""
        return sum(layer.latency_ms for layer in self.layers if layer.bound == bound) / self.latency_ms

    def to_json(self) -> Json:
        """Return a value that JSON can hold."""
        layers = [{**asdict(layer), "latency_ms": layer.latency_ms, "bound": layer.bound} for layer in self.layers]
        return {**asdict(self), "latency_ms": self.latency_ms, "layers": layers}


def estimate(artifact: Artifact, target: Target, precision: Precision = "float32") -> LatencyEstimate:
    """Estimate the latency of an ONNX artifact on a target with a data sheet.

    precision: of the layers that the file does not quantize; int8 estimates a float32 file as if it were quantized.
    Raises InputError for a format other than ONNX, a target without a data sheet, or a precision without a peak there.
    """
    if artifact.manifest.format != "onnx":
        raise InputError(f"{artifact.path.name}: estimates need an ONNX file, this is {artifact.manifest.format}")
    if target.datasheet is None:
        raise InputError(f"target '{target.name}' has no datasheet, which an estimate needs; targets that have "
                         "one: compress list targets")  # fmt: skip
    model = onnx.load(artifact.path)
    layers = estimate_layers(model, target.datasheet, precision, target.batch, target.threads)
    return LatencyEstimate(artifact.path.name, target.datasheet.device, target.batch, layers)


def estimate_layers(
    model: onnx.ModelProto, sheet: DataSheet, precision: Precision, batch: int = 1, threads: int = 1
) -> tuple[LayerEstimate, ...]:
    """Return the estimate of each kernel in graph order; raises InputError for shapes that cannot be inferred."""
    graph = _Graph(model, batch, precision)
    return tuple(_layer(kernel, graph, sheet, threads) for kernel in _kernels(graph))


@dataclass
class _Kernel:
    """An operator with the operators fused into it. output: of the last one; reads: inputs of all of them."""

    node: NodeProto
    output: str
    reads: list[str]


class _Graph:
    """Shapes, element sizes and readers of a graph's tensors; Q/DQ pairs and views count as their source."""

    def __init__(self, model: onnx.ModelProto, batch: int, precision: Precision) -> None:
        """Infer the shapes for a batch size."""
        self.precision: Precision = precision
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shapes = _shapes(model, batch)
        self._source = {node.output[0]: node.input[0] for node in self.nodes if node.op_type in FREE and node.input}
        self._integer = {node.input[0] for node in self.nodes if node.op_type == "DequantizeLinear"}
        self._quantized = {node.input[0] for node in self.nodes if node.op_type == "QuantizeLinear"}
        kept = [node for node in self.nodes if node.op_type not in FREE]
        self.readers = Counter(self.origin(name) for node in kept for name in node.input)
        self.readers.update(self.origin(value.name) for value in model.graph.output)
        self._ends = {value.name for value in (*model.graph.input, *model.graph.output)}

    def origin(self, name: str) -> str:
        """Return the tensor of which this one is a view or a quantized copy."""
        while name in self._source:
            name = self._source[name]
        return name

    def is_integer(self, name: str) -> bool:
        """Return whether a tensor comes from a DequantizeLinear, directly or through views."""
        while name in self._source:
            name = self._source[name]
            if name in self._integer:
                return True
        return False

    def precision_of(self, node: NodeProto) -> Precision:
        """Return the arithmetic of a node: INT8 if both factors are INT8."""
        return "int8" if all(self.is_integer(name) for name in node.input[:2]) else self.precision

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape; raises InputError if it is unknown."""
        tensor = self.constants.get(name)
        shape = tuple(tensor.dims) if tensor is not None else self._shapes.get(name)
        if shape is None or 0 in shape:
            raise InputError(f"the shape of '{name}' cannot be inferred; export with a fixed height and width")
        return shape

    def bytes_of(self, name: str, integer: bool) -> int:
        """Return a tensor's size in bytes; the graph's input and output are float32."""
        bytes_per_element = 4 if name in self._ends else BYTES["int8" if integer else self.precision]
        return int(np.prod(self.shape(name), dtype=np.int64)) * bytes_per_element

    def written_as_integer(self, name: str) -> bool:
        """Return whether a tensor is written as integers."""
        return name in self._quantized


def _shapes(model: onnx.ModelProto, batch: int) -> dict[str, tuple[int, ...]]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        if len(value.type.tensor_type.shape.dim):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(copy, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim) for value in values}


def _kernels(graph: _Graph) -> list[_Kernel]:
    """Return the kernels; an elementwise operator joins the kernel whose output it alone reads."""
    kernels: list[_Kernel] = []
    by_output: dict[str, _Kernel] = {}
    for node in graph.nodes:
        if node.op_type in FREE:
            continue
        reads = [graph.origin(name) for name in node.input if name]
        before = next((name for name in reads if _fuses(graph, node, name, by_output)), None)
        if before is None:
            kernel = _Kernel(node, node.output[0], list(node.input))
            kernels.append(kernel)
        else:
            kernel = by_output.pop(before)
            kernel.reads += [name for name in node.input if graph.origin(name) != before]
            kernel.output = node.output[0]
        by_output[kernel.output] = kernel
    return kernels


def _fuses(graph: _Graph, node: NodeProto, name: str, by_output: dict[str, _Kernel]) -> bool:
    return (
        node.op_type in ELEMENTWISE
        and name in by_output
        and graph.readers[name] == 1
        and graph.shape(name) == graph.shape(node.output[0])
    )


def _layer(kernel: _Kernel, graph: _Graph, sheet: DataSheet, threads: int) -> LayerEstimate:
    node = kernel.node
    precision = graph.precision_of(node) if node.op_type in WEIGHTED else graph.precision
    names = [name for name in dict.fromkeys(kernel.reads) if name]
    activations = [name for name in names if graph.origin(name) not in graph.constants]
    weights = sum(_constant_bytes(graph.constants[graph.origin(name)], precision)
                  for name in names if graph.origin(name) in graph.constants)  # fmt: skip
    moved = sum(graph.bytes_of(graph.origin(name), graph.is_integer(name)) for name in activations)
    moved += graph.bytes_of(kernel.output, graph.written_as_integer(kernel.output))
    macs = _macs(node, graph) if node.op_type in WEIGHTED else 0
    operations_per_s = sheet.operations_per_s(precision, threads)
    return LayerEstimate(
        name=node.name or node.output[0],
        op=node.op_type,
        precision=precision,
        macs=macs,
        weight_bytes=weights,
        activation_bytes=moved,
        arithmetic_ms=2 * macs / operations_per_s * 1e3,
        memory_ms=(weights + moved) / sheet.bytes_per_s * 1e3,
        launch_ms=sheet.launch_overhead_us / 1e3,
    )


def _constant_bytes(tensor: TensorProto, precision: Precision) -> int:
    """Return the size of weights in bytes: vectors have 4 bytes per element, scalars count as 0 bytes."""
    if not tensor.dims:
        return 0
    bytes_per_element = 4 if len(tensor.dims) < 2 else BYTES[precision]
    return int(np.prod(tensor.dims, dtype=np.int64)) * bytes_per_element


def _macs(node: NodeProto, graph: _Graph) -> int:
    """Return the multiply-accumulates of a weighted operator."""
    output = int(np.prod(graph.shape(node.output[0]), dtype=np.int64))
    data, weight = (graph.shape(name) for name in node.input[:2])
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Conv":
        return output * int(np.prod(weight[1:], dtype=np.int64))
    if node.op_type == "ConvTranspose":
        return int(np.prod(data, dtype=np.int64)) * int(np.prod(weight[1:], dtype=np.int64))
    return output * data[0 if attributes.get("transA", 0) else -1]
