"""Write sums, products and clamps of other exporters with Add, Mul, Relu, Clip and LeakyRelu.

TensorFlow, Paddle, Caffe2 and timm write them as Sum, Sub, Div, Max, Min and PRelu.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto, helper

from export.rewrites.editing import EditedGraph

Bounds = tuple[float, float]


def write_plain_arithmetic(graph: EditedGraph) -> None:
    """Replace the operators, in place."""
    of_gelu = {node.input[0] for node in graph.nodes if node.op_type == "Erf"}  # ONNX Runtime fuses Div, Erf, … to Gelu
    graph.nodes = [plain for node in graph.nodes
                   for plain in ([node] if node.output[0] in of_gelu else _plain(graph, node))]  # fmt: skip
    _write_leaky_relus(graph)
    _merge_clamps(graph)
    _write_gates_up_to_one(graph)


def _plain(graph: EditedGraph, node: NodeProto) -> list[NodeProto]:
    """Return the nodes that replace a node, or the node itself."""
    if node.op_type == "Sum":
        return _adds(node)
    if node.op_type == "PRelu":
        slope = graph.constant(node.input[1])
        if slope is not None and slope.size == 1:
            return [helper.make_node("LeakyRelu", node.input[:1], node.output, node.name, alpha=float(slope.item()))]
    if node.op_type in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
        return [_with_constant(graph, node)]
    return [node]


def _adds(node: NodeProto) -> list[NodeProto]:
    """Return a sum of any number of tensors as a chain of Add."""
    first, *others = node.input
    if not others:
        return [helper.make_node("Identity", [first], node.output, node.name)]
    nodes = []
    for index, name in enumerate(others, start=1):
        last = index == len(others)
        output = (
            node.output[0] if last else f"{node.output[0]}_part_{index}"
        )  # not sum_1, as exporters name the next one
        node_name = node.name if last else f"{node.name}_part_{index}"
        nodes.append(helper.make_node("Add", [first, name], [output], node_name))
        first = output
    return nodes


def _with_constant(graph: EditedGraph, node: NodeProto) -> NodeProto:
    """Return an operator of a tensor and a constant as Add, Mul or Clip; a constant of one element becomes a scalar."""
    operand = graph.operand(node)
    if operand is None:
        return node
    data, value = operand
    op = node.op_type
    if op in ("Sub", "Div"):
        if node.input[0] != data or (op == "Div" and (value == 0).any()):
            return node
        op, value = ("Add", -value) if op == "Sub" else ("Mul", np.float32(1) / value)
    shape = graph.shape(data)
    if value.size == 1 and shape is not None and len(shape) >= value.ndim:
        if op in ("Max", "Min"):
            return _clamp(
                graph, node, data, (float(value.item()), math.inf) if op == "Max" else (-math.inf, float(value.item()))
            )
        return helper.make_node(op, [data, graph.add_number(float(value.item()))], node.output, node.name)
    if op == node.op_type:
        return node
    return helper.make_node(op, [data, graph.add(f"{node.name}_constant", value)], node.output, node.name)


def _write_leaky_relus(graph: EditedGraph) -> None:
    """Replace Max(x, a x) with 0 < a < 1, as TensorFlow writes it."""
    producers = graph.producers()
    for node in graph.nodes:
        for data, scaled in (node.input, node.input[::-1]) if node.op_type == "Max" and len(node.input) == 2 else ():
            product = producers.get(scaled)
            operand = graph.operand(product) if product is not None and product.op_type == "Mul" else None
            if operand is not None and operand[0] == data and operand[1].ndim == 0 and 0 < operand[1] < 1:
                node.CopyFrom(helper.make_node("LeakyRelu", [data], node.output, node.name, alpha=float(operand[1])))
                break
    graph.drop_unread()


def _merge_clamps(graph: EditedGraph) -> None:
    """Replace a Relu or Clip that only another one reads, by one with the bounds of both."""
    producers, readers = graph.producers(), graph.readers()
    for node in graph.nodes:
        bounds = _bounds(graph, node)
        before = producers.get(node.input[0]) if bounds is not None else None
        first = _bounds(graph, before) if before is not None and len(readers[before.output[0]]) == 1 else None
        if bounds is None or before is None or first is None or before.output[0] in graph.outputs:
            continue
        low, high = (min(max(bound, bounds[0]), bounds[1]) for bound in first)
        node.CopyFrom(_clamp(graph, node, before.input[0], (low, high)))
    graph.drop_unread()


def _write_gates_up_to_one(graph: EditedGraph) -> None:
    """Replace x Clip(x + 3, 0, 6) / 6, as Paddle and others write HardSwish, by x Clip(x / 6 + 1 / 2, 0, 1).

    This takes one product less, and its clamp is a HardSigmoid.
    """
    producers, readers = graph.producers(), graph.readers()
    replaced: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        bounds, total = _bounds(graph, node), producers.get(node.input[0]) if node.input else None
        if bounds is None or bounds[0] != 0 or bounds[1] in (0, 1, math.inf) or node.output[0] in graph.outputs:
            continue
        operand = graph.operand(total) if total is not None and total.op_type == "Add" else None
        division = _division(graph, readers, node.output[0], bounds[1])
        if total is None or operand is None or operand[1].ndim or division is None:
            continue
        scaled, shifted = f"{node.output[0]}_scaled", f"{node.output[0]}_shifted"
        factor, offset = graph.add_number(1 / bounds[1]), graph.add_number(float(operand[1]) / bounds[1])
        for name in (scaled, shifted):
            graph.set_shape(name, graph.shape(operand[0]))
        before, product = division
        replaced[node.name] = [
            helper.make_node("Mul", [operand[0], factor], [scaled], f"{node.name}_scale"),
            helper.make_node("Add", [scaled, offset], [shifted], f"{node.name}_shift"),
            _clamp(graph, helper.make_node("Clip", [shifted], node.output, node.name), shifted, (0.0, 1.0)),
        ]
        replaced[product.name] = []
        renamed = replaced[before.name][-1] if before is node else before
        renamed.output[0] = product.output[0]
    graph.nodes = [part for node in graph.nodes for part in replaced.get(node.name, [node])]
    graph.drop_unread()


def _division(
    graph: EditedGraph, readers: dict[str, list[NodeProto]], name: str, divisor: float
) -> tuple[NodeProto, NodeProto] | None:
    """Return the node whose output is divided, and the product that divides it: a tensor's, or that of its product."""
    before: NodeProto | None = None
    for _ in range(2):
        after = readers[name]
        if len(after) != 1 or after[0].op_type != "Mul" or name in graph.outputs:
            return None
        operand = graph.operand(after[0])
        if operand is not None:
            before = before or graph.producers()[name]
            is_inverse = operand[1].ndim == 0 and math.isclose(float(operand[1]) * divisor, 1, rel_tol=1e-5)
            return (before, after[0]) if is_inverse else None
        before, name = after[0], after[0].output[0]
    return None


def _bounds(graph: EditedGraph, node: NodeProto) -> Bounds | None:
    """Return the bounds of a Relu, or of a Clip with constant bounds."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip":
        return None
    bounds = [-math.inf, math.inf]
    for index, name in enumerate(node.input[1:]):
        value = graph.constant(name) if name else np.asarray(bounds[index])
        if value is None or value.size != 1:
            return None
        bounds[index] = float(value.item())
    return (bounds[0], bounds[1]) if bounds[0] <= bounds[1] else None


def _clamp(graph: EditedGraph, node: NodeProto, data: str, bounds: Bounds) -> NodeProto:
    if bounds == (0, math.inf):
        return helper.make_node("Relu", [data], node.output, node.name)
    names = ["" if math.isinf(bound) else graph.add_number(bound) for bound in bounds]
    return helper.make_node("Clip", [data, *names], node.output, node.name)
