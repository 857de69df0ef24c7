"""Fold a Pad with the lowest numbers into the MaxPool behind it, as of TensorFlow's SAME pools written by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

LOWEST = -1e30  # and below: numbers that never are the maximum. As values of an activation, they would ruin its range


def fold_pool_pads(model: onnx.ModelProto) -> None:
    """Replace the padding, in place; a MaxPool ignores its own."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    padding = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    for node in model.graph.node:
        pad = padding.get(node.input[0]) if node.op_type == "MaxPool" else None
        if pad is None:
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        kernel = attributes["kernel_shape"]
        added = _spatial_pads(pad, constants, len(kernel) + 2)
        if added is None:
            continue
        dilations = attributes.get("dilations", [1] * len(kernel))
        pads = [own + more for own, more in zip(attributes.get("pads", [0] * len(added)), added, strict=True)]
        reaches = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)] * 2
        if attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and all(
            pad <= reach for pad, reach in zip(pads, reaches, strict=True)
        ):
            kept = [attribute for attribute in node.attribute if attribute.name not in ("pads", "auto_pad")]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("pads", pads)])
            node.input[0] = pad.input[0]
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    for node in padding.values():
        if node.output[0] not in used:
            model.graph.node.remove(node)


def _spatial_pads(node: NodeProto, constants: dict[str, TensorProto], rank: int) -> list[int] | None:
    """Return how many of the lowest numbers a Pad adds: begins, then ends of height, width, …; None for other Pads."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"constant")
    pads, value, axes = (constants.get(name) for name in [*node.input, "", ""][1:4])
    if mode != b"constant" or pads is None or value is None or (any(node.input[3:]) and axes is None):
        return None
    number = numpy_helper.to_array(value)
    sizes = np.zeros((2, rank), np.int64)
    sizes[:, slice(None) if axes is None else numpy_helper.to_array(axes)] = numpy_helper.to_array(pads).reshape(2, -1)
    if sizes.min() < 0 or sizes[:, :2].any() or number.size != 1 or not number.item() <= LOWEST:
        return None
    return [int(size) for size in sizes[:, 2:].ravel()]
