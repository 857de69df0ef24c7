"""Replace control flow that does not depend on the images by plain operators, which can be quantized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from export.rewrites.constants import FAILURES
from export.subgraph import between, computed_from_values

Array = npt.NDArray[np.generic]

BATCHES = (1, 2, 3, 4, 8)  # sizes of a batch that are tried where it is open
MAX_NODES = 300  # of all iterations of a loop; a recurrence over many steps is slower as single operators
FIRST_PLAIN_SCAN = 9  # opset; before, a Scan has a batch axis of its own
AXES_ARE_INPUTS = 13  # opset from which Unsqueeze takes its axes as an input


@dataclass
class _Iteration:
    """One copy of a body. values: what the body's inputs read, outputs: what its outputs are called."""

    nodes: list[NodeProto]
    outputs: list[str]


@dataclass(frozen=True)
class _Loop:
    """A Loop or Scan. states: number of values that an iteration hands to the next one."""

    node: NodeProto
    body: GraphProto
    count: int
    states: int
    opset: int


def decide_by_sizes(model: onnx.ModelProto) -> bool:
    """Make constants of conditions of If and Loop, and of counts of Loop, that depend on sizes alone, in place.

    Return whether there are any. Sizes of the input are fixed, except for the batch; what changes with it stays.
    """
    known = computed_from_values(model) | {tensor.name for tensor in model.graph.initializer} | {""}
    read = {"If": 1, "Loop": 2}
    nodes = [node for node in model.graph.node if node.op_type in read]
    names = {name for node in nodes for name in node.input[: read[node.op_type]]} - known
    values = _values_for_any_batch(model, sorted(names)) if names else {}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value, f"{name}_of_sizes"))
    for node in nodes:
        for index in range(read[node.op_type]):
            if node.input[index] in values:
                node.input[index] = f"{node.input[index]}_of_sizes"
    return bool(values)


def _values_for_any_batch(model: onnx.ModelProto, names: list[str]) -> dict[str, Array]:
    """Return the values of tensors for zeros, without those that change with the batch."""
    part = between(model, {}, names)
    batch, *sizes = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = [{value.name: np.zeros((size, *sizes), np.float32) for value in part.graph.input}
                 for size in ((batch,) if batch else BATCHES)]  # fmt: skip
        runs = [session.run(names, feed) for feed in feeds]
    except FAILURES:  # loading the whole model says what is wrong with it
        return {}
    return {name: np.asarray(values[0]) for name, *values in zip(names, *runs, strict=True)
            if all(np.array_equal(values[0], value) for value in values)}  # fmt: skip


def unroll(model: onnx.ModelProto) -> bool:
    """Replace each Loop with a constant number of iterations, and each Scan of a known length, in place.

    Return whether there is one. Names of the copies begin with that of the node's first output.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    loops = dict(_loops(model, opset)) if any(node.op_type in ("Loop", "Scan") for node in model.graph.node) else {}
    nodes: list[NodeProto] = []
    for index, node in enumerate(model.graph.node):
        nodes += _unrolled(model.graph, loops[index]) if index in loops else [_copy(node)]
    if loops:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return bool(loops)


def _loops(model: onnx.ModelProto, opset: int) -> Iterator[tuple[int, _Loop]]:
    """Yield the loops that can be unrolled, with their positions in the graph."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    graph = shape_inference.infer_shapes(model).graph
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
              for value in (*graph.value_info, *graph.input)}  # fmt: skip
    for index, node in enumerate(model.graph.node):
        body = next((attribute.g for attribute in node.attribute if attribute.name == "body"), None)
        count, states = -1, 0
        if node.op_type == "Loop" and body is not None and _always_continues(node, body, constants):
            count, states = int(numpy_helper.to_array(constants[node.input[0]]).item()), len(node.input) - 2
        elif node.op_type == "Scan" and body is not None and opset >= FIRST_PLAIN_SCAN:
            states = len(node.input) - _integers(node, "num_scan_inputs")[0]
            shape, axis = shapes.get(node.input[states], []), (_integers(node, "scan_input_axes") or [0])[0]
            count = shape[axis] or -1 if -len(shape) <= axis < len(shape) else -1
        is_stacked = any(node.output[states:])  # of no elements, nothing can be stacked
        if body is not None and int(is_stacked) <= count and count * len(body.node) <= MAX_NODES:
            yield index, _Loop(node, body, count, states, opset)


def _always_continues(node: NodeProto, body: GraphProto, constants: Mapping[str, TensorProto]) -> bool:
    """Return whether a Loop has a constant number of iterations and no condition that could end it before."""
    if node.input[0] not in constants or (node.input[1] and not _is_true(constants.get(node.input[1]))):
        return False
    inner = {tensor.name: tensor for tensor in body.initializer}
    producers = {name: each for each in body.node for name in each.output}
    name = body.output[0].name
    while name in producers and producers[name].op_type in ("Identity", "Cast"):
        name = producers[name].input[0]
    if name in producers and producers[name].op_type == "Constant":
        return _is_true(next((each.t for each in producers[name].attribute if each.name == "value"), None))
    return name == body.input[1].name or _is_true(inner.get(name, constants.get(name)))


def _is_true(constant: TensorProto | None) -> bool:
    return constant is not None and bool(numpy_helper.to_array(constant).all())


def _unrolled(graph: GraphProto, loop: _Loop) -> list[NodeProto]:
    """Return the nodes of all iterations and those that write the outputs; add constants to the graph."""
    node, is_loop = loop.node, loop.node.op_type == "Loop"
    prefix = node.output[0] or node.name
    for tensor in loop.body.initializer:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = f"{prefix}/{tensor.name}"
        graph.initializer.append(copy)
    states = list(node.input[2:] if is_loop else node.input[: loop.states])
    condition = node.input[1] if is_loop else ""
    if is_loop and not condition:
        condition = _constant(graph, f"{prefix}/condition", np.asarray(True))
    nodes: list[NodeProto] = []
    results: list[list[str]] = []
    for number in range(loop.count):
        if is_loop:
            inputs = [_constant(graph, f"{prefix}/{number}/iteration", np.asarray(number)), condition, *states]
        else:
            inputs = states + [_element(graph, nodes, loop, index, number)
                               for index in range(len(node.input) - loop.states)]  # fmt: skip
        iteration = _iteration(loop.body, inputs, prefix, number)
        outputs = iteration.outputs[1:] if is_loop else iteration.outputs
        nodes += iteration.nodes
        states = outputs[: loop.states]
        results.append(outputs[loop.states :])
    finals = zip(node.output[: loop.states], states, strict=True)
    nodes += [helper.make_node("Identity", [state], [name]) for name, state in finals if name]
    for index, name in enumerate(node.output[loop.states :]):
        if name:
            nodes += _stacked(graph, loop, index, [each[index] for each in results])
    return nodes


def _iteration(body: GraphProto, inputs: list[str], prefix: str, number: int) -> _Iteration:
    """Return a copy of a body that reads `inputs`; its constants are shared by all iterations."""
    names = {tensor.name: f"{prefix}/{tensor.name}" for tensor in body.initializer}
    names |= {value.name: name for value, name in zip(body.input, inputs, strict=True)}
    names |= {name: f"{prefix}/{number}/{name}" for node in body.node for name in node.output if name}
    nodes = [_copy(node) for node in body.node]
    for node in nodes:
        node.name = f"{prefix}/{number}/{node.name or node.output[0]}"
        _rename(node, names)
    return _Iteration(nodes, [names.get(value.name, value.name) for value in body.output])


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename the tensors of a node, and those of its own graphs that come from outside."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                _rename(inner, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)


def _element(graph: GraphProto, nodes: list[NodeProto], loop: _Loop, index: int, number: int) -> str:
    """Add the node that takes an iteration's element of a sequence of a Scan; return the element's name."""
    axis = dict(enumerate(_integers(loop.node, "scan_input_axes"))).get(index, 0)
    backwards = dict(enumerate(_integers(loop.node, "scan_input_directions"))).get(index, 0)
    prefix = loop.node.output[0] or loop.node.name
    position = loop.count - 1 - number if backwards else number
    name = f"{prefix}/{number}/element_{index}"
    constant = _constant(graph, f"{name}_position", np.asarray(position))
    nodes.append(helper.make_node("Gather", [loop.node.input[loop.states + index], constant], [name], name, axis=axis))
    return name


def _stacked(graph: GraphProto, loop: _Loop, index: int, elements: list[str]) -> list[NodeProto]:
    """Return the nodes that stack the elements of all iterations to an output."""
    name = loop.node.output[loop.states + index]
    axis = dict(enumerate(_integers(loop.node, "scan_output_axes"))).get(index, 0)
    if dict(enumerate(_integers(loop.node, "scan_output_directions"))).get(index, 0):
        elements = elements[::-1]
    rows = [f"{name}/{number}" for number in range(len(elements))]
    if loop.opset >= AXES_ARE_INPUTS:
        axes = _constant(graph, f"{name}/axis", np.asarray([axis]))
        nodes = [helper.make_node("Unsqueeze", [element, axes], [row], row)
                 for element, row in zip(elements, rows, strict=True)]  # fmt: skip
    else:
        nodes = [helper.make_node("Unsqueeze", [element], [row], row, axes=[axis])
                 for element, row in zip(elements, rows, strict=True)]  # fmt: skip
    return [*nodes, helper.make_node("Concat", rows, [name], f"{name}/stacked", axis=axis)]


def _constant(graph: GraphProto, name: str, value: Array) -> str:
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _integers(node: NodeProto, name: str) -> list[int]:
    attribute = next((each for each in node.attribute if each.name == name), None)
    if attribute is None:
        return []
    return list(attribute.ints) or [attribute.i]


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
