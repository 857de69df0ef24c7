"""Extract parts of an ONNX graph as models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx
from onnx import NodeProto, ValueInfoProto, helper

SIZE_OPS = ("Shape", "Size")  # read the sizes of a tensor, not its values


def between(model: onnx.ModelProto, cuts: Mapping[str, int], outputs: Iterable[str]) -> onnx.ModelProto:
    """Return the model that computes `outputs` from the tensors in `cuts` that it needs.

    cuts: tensor names with their element types (`TensorProto.UINT8`, …); nodes before a cut are omitted.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    inside: dict[int, NodeProto] = {}
    reads: set[str] = set()
    pending = [name for name in outputs if name in producer]
    while pending:
        node = producer[pending.pop()]
        if id(node) in inside:
            continue
        inside[id(node)] = node
        reads.update(name for name in node.input if name)
        pending += [name for name in node.input if name in producer and name not in cuts]
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = "part"
    part.graph.node.extend(node for node in model.graph.node if id(node) in inside)
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in reads)
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    computed = {name for node in part.graph.node for name in node.output}
    for name in sorted(reads - constants - computed):
        part.graph.input.append(inputs.get(name) or helper.make_tensor_value_info(name, cuts[name], None))
    part.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    return part


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of the model with additional outputs `names`, in that order."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    copy.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in present)
    return copy


def tensors_read(node: NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, also those that the graphs of its control flow name."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from tensors_read(inner)


def computed_from_values(model: onnx.ModelProto) -> set[str]:
    """Return the inputs of a graph and the tensors that depend on their values, not on their sizes alone."""
    constants = {tensor.name for tensor in model.graph.initializer}
    computed = {value.name for value in model.graph.input if value.name not in constants}
    for node in model.graph.node:
        if node.op_type not in SIZE_OPS and not computed.isdisjoint(tensors_read(node)):
            computed.update(node.output)
    return computed
