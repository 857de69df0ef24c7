"""Rewrite HardSwish and HardSigmoid with operators that have integer kernels; outputs do not change.

    HardSigmoid(x) = Clip(alpha x + beta, 0, 1)          alpha and beta are folded into the layer before
    HardSwish(x) = x Clip(x / 6 + 1 / 2, 0, 1)           (Howard et al., MobileNetV3, ICCV 2019, section 5.2)

In INT8, Relu and Clip are free: the quantizer after them clips. A product with a scalar is free, too: it is another
scale for the same integers.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from export.layers import WEIGHTED_OPS, is_layer


def rewrite_hard_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a float32 graph without HardSwish and HardSigmoid."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in result.graph.initializer}
    producer = {name: node for node in result.graph.node for name in node.output}
    reads = [name for node in result.graph.node for name in node.input]
    reads += [output.name for output in result.graph.output]
    nodes: list[NodeProto] = []
    for node in result.graph.node:
        if node.op_type == "HardSwish":
            nodes += _gated(result, node, node.input[0])
        elif node.op_type == "HardSigmoid":
            attributes = {attribute.name: attribute.f for attribute in node.attribute}
            alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
            layer = producer.get(node.input[0])
            if layer is not None and is_layer(layer, constants) and reads.count(node.input[0]) == 1:
                _scale_layer(result, layer, alpha, beta)
                nodes.append(_clip(result, node.input[0], node.output[0], node.name))
            else:
                nodes += _gate(result, node.input[0], node.output[0], node.name, alpha, beta)
        else:
            nodes.append(node)
    kept = [_copy(node) for node in nodes]
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(kept)
    return result


def _gated(model: onnx.ModelProto, node: NodeProto, data: str) -> list[NodeProto]:
    gate = f"{node.output[0]}_gate"
    product = helper.make_node("Mul", [data, gate], [node.output[0]], name=node.name)
    return [*_gate(model, data, gate, f"{node.name}_gate", 1 / 6, 0.5), product]


def _gate(model: onnx.ModelProto, data: str, output: str, name: str, alpha: float, beta: float) -> list[NodeProto]:
    scaled, shifted = f"{output}_scaled", f"{output}_shifted"
    factor, offset = _scalar(model, alpha), _scalar(model, beta)
    return [
        helper.make_node("Mul", [data, factor], [scaled], name=f"{name}_scale"),
        helper.make_node("Add", [scaled, offset], [shifted], name=f"{name}_shift"),
        _clip(model, shifted, output, name),
    ]


def _clip(model: onnx.ModelProto, data: str, output: str, name: str) -> NodeProto:
    return helper.make_node("Clip", [data, _scalar(model, 0.0), _scalar(model, 1.0)], [output], name=f"{name}_clip")


def _scalar(model: onnx.ModelProto, value: float) -> str:
    """Return the name of a constant with that value; add it, under an unused name, if it is missing."""
    constant = numpy_helper.from_array(np.asarray(value, np.float32), f"constant_{value:.9g}")
    present = {tensor.name: tensor for tensor in model.graph.initializer}
    while constant.name in present and present[constant.name] != constant:
        constant.name += "_"
    if constant.name not in present:
        model.graph.initializer.append(constant)
    return str(constant.name)


def _scale_layer(model: onnx.ModelProto, node: NodeProto, alpha: float, beta: float) -> None:
    """Fold alpha and beta into a layer, whose output becomes alpha y + beta."""
    assert node.op_type in WEIGHTED_OPS
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weight = constants[node.input[1]] * np.float32(alpha)
    outputs = weight.shape[0] if node.op_type == "Conv" else 1
    bias = constants[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(outputs, np.float32)
    bias = bias * np.float32(alpha) + np.float32(beta)
    names = [f"{node.name}_weight_hard", f"{node.name}_bias_hard"]  # constants may be shared with other nodes
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for value, name in zip((weight, bias), names, strict=True)
    )
    data = node.input[0]
    del node.input[:]
    node.input.extend([data, *names])


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
