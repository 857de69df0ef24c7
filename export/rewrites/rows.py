"""Write products of tokens (N, T, K) with constant matrices as Gemm of rows (N T, K), which has an integer kernel."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from export.rewrites.editing import EditedGraph

# Operators that act on each value alone, so that they may as well act on rows.
UNARY_OPS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu"})


def write_rows(graph: EditedGraph) -> None:
    """Replace the products, in place; operators between two of them act on rows, too."""
    graph.nodes = [new for node in graph.nodes for new in _gemm(graph, node)]
    _join_reshapes(graph)
    while _sink_reshape(graph):
        pass
    _join_reshapes(graph)


def _gemm(graph: EditedGraph, node: NodeProto) -> list[NodeProto]:
    """Return a MatMul with a constant matrix as Reshape, Gemm and Reshape; other nodes as they are."""
    weight = graph.constant(node.input[1]) if node.op_type == "MatMul" else None
    shape = graph.shape(node.input[0]) if weight is not None else None
    if weight is None or shape is None or weight.ndim != 2 or len(shape) < 2:
        return [node]
    if len(shape) == 2:
        return [helper.make_node("Gemm", node.input, node.output, node.name)]
    inputs, outputs = weight.shape
    rows, product = f"{node.output[0]}_rows", f"{node.output[0]}_product"
    graph.set_shape(rows, [None, inputs])
    graph.set_shape(product, [None, outputs])
    back, nodes = _shape_of_product(graph, node, shape[:-1], outputs)
    return [
        helper.make_node(
            "Reshape",
            [node.input[0], graph.add(f"rows_of_{inputs}", np.asarray([-1, inputs]))],
            [rows],
            f"{node.name}_rows",
        ),
        helper.make_node("Gemm", [rows, node.input[1]], [product], node.name),
        *nodes,
        helper.make_node("Reshape", [product, back], [node.output[0]], f"{node.name}_back"),
    ]


def _shape_of_product(
    graph: EditedGraph, node: NodeProto, sizes: list[int | None], outputs: int
) -> tuple[str, list[NodeProto]]:
    """Return the name of a MatMul's shape, and the nodes that compute it if more than one size is not fixed."""
    name = f"{node.name}_shape"
    if sizes.count(None) <= 1:
        return graph.add(name, np.asarray([*(-1 if size is None else size for size in sizes), outputs])), []
    first, last = (graph.add(f"axis_{axis}", np.asarray([axis])) for axis in (0, len(sizes)))
    return name, [
        helper.make_node("Shape", [node.input[0]], [f"{name}_of_input"], f"{name}_of_input"),
        helper.make_node("Slice", [f"{name}_of_input", first, last], [f"{name}_of_tokens"], f"{name}_of_tokens"),
        helper.make_node("Concat", [f"{name}_of_tokens", graph.add(f"size_{outputs}", np.asarray([outputs]))], [name],
                        name, axis=0),
    ]  # fmt: skip


def _sink_reshape(graph: EditedGraph) -> bool:
    """Swap a Reshape of a Gemm's rows with the operator behind it; return whether there was one."""
    readers, producers = graph.readers(), graph.producers()
    rows = {node.name for node in graph.nodes if node.op_type == "Gemm"}
    for position, node in enumerate(graph.nodes):
        if node.op_type != "Reshape" or node.output[0] in graph.outputs:
            continue
        writer, after = producers.get(node.input[0]), readers[node.output[0]]
        if len(after) != 1 or writer is None or not _writes_rows(writer, producers, rows):
            continue
        swapped = _on_rows(graph, after[0], node)
        if swapped is not None:
            graph.nodes[position] = swapped
            graph.nodes[_index(graph, after[0])] = helper.make_node(
                "Reshape", [swapped.output[0], node.input[1]], after[0].output, node.name
            )
            return True
    return False


def _writes_rows(node: NodeProto, producers: dict[str, NodeProto], gemms: set[str]) -> bool:
    """Return whether a node is a Gemm or acts on the values of one."""
    while node.name not in gemms and node.op_type in (*UNARY_OPS, "Add", "Mul") and node.input[0] in producers:
        node = producers[node.input[0]]
    return node.name in gemms


def _on_rows(graph: EditedGraph, node: NodeProto, reshape: NodeProto) -> NodeProto | None:
    """Return the operator behind a Reshape as one before it; None if it cannot be."""
    rows, output = reshape.input[0], f"{node.output[0]}_rows"
    graph.set_shape(output, graph.shape(rows))
    swapped = NodeProto()
    swapped.CopyFrom(node)
    swapped.output[0] = output
    if node.op_type in UNARY_OPS and node.input[0] == reshape.output[0]:
        swapped.input[0] = rows
        return swapped
    operand = graph.operand(node) if node.op_type in ("Add", "Mul") else None
    shape = graph.shape(reshape.output[0])
    if operand is None or operand[0] != reshape.output[0] or shape is None or operand[1].ndim > len(shape):
        return None
    value = operand[1]
    if value.size == 1:
        name = graph.add_number(float(value.item()))
    elif value.size == value.shape[-1] == _last_size(graph, reshape):
        name = graph.add(f"{node.name}_row", value.ravel())
    else:
        return None
    del swapped.input[:]
    swapped.input.extend([rows, name])
    return swapped


def _last_size(graph: EditedGraph, reshape: NodeProto) -> int | None:
    """Return the size of the last axis before and after a Reshape; None if it changes or is not fixed."""
    before, after = graph.shape(reshape.input[0]), graph.shape(reshape.output[0])
    return after[-1] if after and before and before[-1] == after[-1] else None


def _join_reshapes(graph: EditedGraph) -> None:
    """Make a Reshape of a Reshape read what the first one reads; readers of a Reshape of rows to rows read its input.

    A Reshape that copies sizes of its input depends on the one before it.
    """
    producers = graph.producers()
    rows: dict[str, str] = {}
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            node.input[index] = rows.get(name, name)
        sizes = graph.integers(node.input[1]) if node.op_type == "Reshape" else None
        if sizes is None or 0 in sizes:
            continue
        before = producers.get(node.input[0])
        if before is not None and before.op_type == "Reshape":
            node.input[0] = before.input[0]
        shape = graph.shape(node.input[0])
        if sizes[0] == -1 and len(sizes) == 2 and shape is not None and len(shape) == 2 and shape[1] == sizes[1]:
            rows[node.output[0]] = node.input[0]
    graph.drop_unread()


def _index(graph: EditedGraph, node: NodeProto) -> int:
    return next(index for index, other in enumerate(graph.nodes) if other is node)
