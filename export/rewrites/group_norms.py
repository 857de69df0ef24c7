"""Write GroupNormalization of opset 18 to 20, which onnx rejects and ONNX Runtime runs, as InstanceNormalization."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

FIRST_OPSET, FIXED_IN_OPSET = 18, 21  # from opset 21 on, scale and bias have a value for each channel


def write_group_norms(model: onnx.ModelProto) -> None:
    """Replace the operators, also those of local functions, in place.

    Their scale and bias have one value for each group, as those of an InstanceNormalization of (N, groups, values).
    """
    for part, imports in ((model.graph, model.opset_import), *((each, each.opset_import) for each in model.functions)):
        opset = next((entry.version for entry in imports if entry.domain in ("", "ai.onnx")), 0)
        if FIRST_OPSET <= opset < FIXED_IN_OPSET and any(map(_is_group_norm, part.node)):
            nodes = [new for node in part.node for new in (_written(node) if _is_group_norm(node) else [node])]
            copies = list(map(_copy, nodes))
            del part.node[:]
            part.node.extend(copies)


def _is_group_norm(node: NodeProto) -> bool:
    """Return whether a node is a GroupNormalization; its attributes must not be those of the function that holds it."""
    is_plain = not any(attribute.ref_attr_name for attribute in node.attribute)
    return node.op_type == "GroupNormalization" and node.domain in ("", "ai.onnx") and is_plain


def _written(node: NodeProto) -> Iterable[NodeProto]:
    (data, scale, bias), (result,) = node.input, node.output
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    sizes = numpy_helper.from_array(np.asarray([0, attributes["num_groups"], -1]))
    name = node.name or result
    return (
        helper.make_node("Constant", [], [f"{result}_sizes"], f"{name}_sizes", value=sizes),
        helper.make_node("Reshape", [data, f"{result}_sizes"], [f"{result}_groups"], f"{name}_groups"),
        helper.make_node("InstanceNormalization", [f"{result}_groups", scale, bias], [f"{result}_normal"], name,
                         epsilon=attributes.get("epsilon", 1e-5)),
        helper.make_node("Shape", [data], [f"{result}_shape"], f"{name}_shape"),
        helper.make_node("Reshape", [f"{result}_normal", f"{result}_shape"], [result], f"{name}_back"),
    )  # fmt: skip


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
