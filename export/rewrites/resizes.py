"""Give each Resize the scales or sizes of all axes; of some, ONNX Runtime mistakes them beside integer convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def write_all_axes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int | None]]) -> None:
    """Rewrite each Resize with the attribute axes, in place. shapes: of the tensors, by name.

    Those that crop or keep the aspect ratio stay.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        names = {attribute.name for attribute in node.attribute}
        rank = len(shapes.get(node.input[0], ())) if node.op_type == "Resize" and "axes" in names else 0
        if rank and not node.input[1] and "keep_aspect_ratio_policy" not in names:
            axes = next(list(attribute.ints) for attribute in node.attribute if attribute.name == "axes")
            nodes += _with_all_axes(model, node, constants, [axis % rank for axis in axes], rank)
        nodes.append(node)
    copies = list(map(_copy, nodes))
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _with_all_axes(
    model: onnx.ModelProto, node: NodeProto, constants: Mapping[str, TensorProto], axes: list[int], rank: int
) -> list[NodeProto]:
    """Rewrite a Resize; return the nodes that compute its sizes."""
    index = 2 if node.input[2] else 3
    given = constants.get(node.input[index])
    is_trailing = axes == list(range(rank - len(axes), rank))
    if given is None or (index == 3 and not is_trailing):
        return []
    name = f"{node.output[0]}_{'scales' if index == 2 else 'sizes'}"
    if index == 2:
        scales = np.ones(rank, np.float32)
        scales[axes] = numpy_helper.to_array(given)
        model.graph.initializer.append(numpy_helper.from_array(scales, name))
    kept = [attribute for attribute in node.attribute if attribute.name != "axes"]
    del node.attribute[:]
    node.attribute.extend(kept)
    sizes, node.input[index] = node.input[index], name
    if index == 2:
        return []
    return [
        helper.make_node("Shape", [node.input[0]], [f"{name}_before"], f"{name}_before", end=rank - len(axes)),
        helper.make_node("Concat", [f"{name}_before", sizes], [name], name, axis=0),
    ]


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
