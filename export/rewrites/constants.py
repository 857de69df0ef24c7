"""Fold weights that are computed from constants: standardized or dequantized ones; write outputs that are constants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import NodeProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from export.subgraph import between

FAILURES = (state.Fail, state.InvalidGraph, state.InvalidArgument, state.NotImplemented, state.RuntimeException)
RANDOM_OPS = ("RandomNormal", "RandomUniform", "Multinomial", "Bernoulli", "Dropout")
Array = npt.NDArray[np.float32]


def in_training_mode(node: NodeProto) -> bool:
    """Return whether a node is a BatchNormalization that computes the statistics itself; before opset 14, with them as
    outputs.
    """
    trains = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    return node.op_type == "BatchNormalization" and (trains or any(node.output[1:]))


def fold_constant_norms(model: onnx.ModelProto) -> None:
    """Replace a BatchNormalization in training mode of constants by its result, in place.

    The statistics of constants do not depend on the images.
    """
    for node in [node for node in model.graph.node if in_training_mode(node)]:
        inputs = _constants(model, list(node.input[:3]))
        if inputs is None:
            continue
        read = {name for other in model.graph.node for name in other.input}
        read |= {value.name for value in model.graph.output}
        if read.isdisjoint(node.output[1:]):
            model.graph.initializer.append(numpy_helper.from_array(_normalized(node, *inputs), node.output[0]))
            model.graph.node.remove(node)


def fold_dequantized_weights(model: onnx.ModelProto) -> bool:
    """Replace weights that are stored as integers, or rounded to them, by their float32 values, in place.

    Return whether there are any.
    """
    values: dict[str, Array] = {}
    for node in model.graph.node:
        weights = _constants(model, list(node.output)) if node.op_type == "DequantizeLinear" else None
        if weights is not None:
            values[node.output[0]] = weights[0].astype(np.float32)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    kept = [node for node in model.graph.node if node.output[0] not in values]
    read = {name for node in kept for name in node.input} | {value.name for value in model.graph.output}
    kept = [node for node in kept if node.op_type != "QuantizeLinear" or node.output[0] in read]
    copies = list(map(_copy, kept))
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return bool(values)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _normalized(node: NodeProto, data: Array, scale: Array, bias: Array) -> Array:
    """Return the output (N, C, …) of a node: scale (x - mean) / sqrt(variance + epsilon) + bias of each channel."""
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    axes, each = (0, *range(2, data.ndim)), (1, -1, *[1] * (data.ndim - 2))
    values = data.astype(np.float64)
    deviation = values - values.mean(axes, keepdims=True)
    normal = deviation / np.sqrt(np.square(deviation).mean(axes, keepdims=True) + epsilon)
    return np.asarray(normal * scale.reshape(each) + bias.reshape(each), data.dtype)


def _constants(model: onnx.ModelProto, names: list[str]) -> list[Array] | None:
    """Return the values of tensors; None unless all are computed from constants alone."""
    if not {value.name for value in model.graph.input}.isdisjoint(names):
        return None
    present = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in names}
    part = between(model, {}, [name for name in names if name not in present])
    if part.graph.input or any(node.op_type.startswith(RANDOM_OPS) for node in part.graph.node):
        return None
    if part.graph.output:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        wanted = [value.name for value in part.graph.output]
        try:
            session = ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
            present |= dict(zip(wanted, session.run(wanted, {}), strict=True))
        except FAILURES:  # loading the whole model says what is wrong with it
            return None
    return [present[name] for name in names]


def write_constant_outputs(model: onnx.ModelProto) -> None:
    """Let an operator compute each output that is a constant, in place; a graph returns only what operators compute."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for value in model.graph.output:
        tensor = constants.get(value.name)
        if tensor is not None:
            model.graph.node.append(helper.make_node("Identity", [f"{value.name}_constant"], [value.name]))
            for node in model.graph.node[:-1]:
                for index, name in enumerate(node.input):
                    node.input[index] = f"{name}_constant" if name == value.name else name
            tensor.name = f"{value.name}_constant"
