"""Convert float16, bfloat16 and float64 networks to float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, ValueInfoProto, numpy_helper

OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")  # of Cast, of random numbers and EyeLike, of QuantizeLinear
LARGEST = float(np.finfo(np.float32).max)


def other_float(model: onnx.ModelProto) -> str | None:
    """Return the name of the type in which a network computes, None for float32.

    Single constants of another type, as of sizes of a Resize, do not count.
    """
    constants = [tensor.data_type for tensor in all_tensors(model.graph) if int(np.prod(tensor.dims)) > 1]
    ends = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    kind = next((kind for kind in (*constants, *ends) if kind in OTHER_FLOATS), None)
    return None if kind is None else TensorProto.DataType.Name(kind).lower()


def to_float32(model: onnx.ModelProto) -> None:
    """Make every tensor of another floating-point type float32, inputs and outputs included."""
    for tensor in all_tensors(model.graph):
        if tensor.data_type in OTHER_FLOATS:
            values = numpy_helper.to_array(tensor).astype(np.float64)
            finite = np.where(np.isinf(values), values, np.clip(values, -LARGEST, LARGEST))
            tensor.CopyFrom(numpy_helper.from_array(finite.astype(np.float32), tensor.name))
    for graph in all_graphs(model.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            _retype(value)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in TYPE_ATTRIBUTES and attribute.i in OTHER_FLOATS:
                    attribute.i = TensorProto.FLOAT


def _retype(value: ValueInfoProto) -> None:
    if value.type.tensor_type.elem_type in OTHER_FLOATS:
        value.type.tensor_type.elem_type = TensorProto.FLOAT


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and those of its control flow."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g,) if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                yield from all_graphs(inner)


def all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield the constants of a graph and of those of its control flow."""
    for inner in all_graphs(graph):
        yield from inner.initializer
        for node in inner.node:
            yield from (attribute.t for attribute in node.attribute if attribute.type == AttributeProto.TENSOR)
