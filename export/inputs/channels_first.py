"""Rewrite a network to take float32 (N, C, H, W) of a fixed size, and a finished one to take its own input again."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.inputs.image_input import ImageInput
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
# Operators with the same result for pixels in float32 as in uint8.
MOVING_OPS = frozenset({"Transpose", "Slice", "Gather", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Split",
                        "Identity", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"})  # fmt: skip
ENDS = frozenset({"Cast", "CastLike", "Shape", "Size"})  # their outputs are no uint8


def take_channels_first(model: onnx.ModelProto, image: ImageInput, preprocessing: Preprocessing) -> None:
    """Let the input be float32 (N, C, H, W) of a preprocessing's size; pixels stay in 0 to 255 for a network of uint8.

    Raises InputError for a network that computes with uint8 pixels before it converts them.
    """
    graph = model.graph
    if image.dtype == "uint8":
        _write_dequantized_pixels(graph, image.name)
        _require_unchanged_pixels(graph, image.name)
        del graph.value_info[:]
    (value,) = [value for value in graph.input if value.name == image.name]
    height, width, channels = preprocessing.image_shape
    _fix_named_sizes(graph, value, image, (height, width))
    batch = value.type.tensor_type.shape.dim[0] if value.type.tensor_type.shape.dim else None
    size = "batch" if batch is None else batch.dim_value or batch.dim_param or "batch"
    value.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.FLOAT, [size, channels, height, width]))
    if image.layout == "NHWC":
        _insert_first(graph, image.name, "nhwc", helper.make_node("Transpose", [], [], perm=TO_NHWC))


def take_own_input(model: onnx.ModelProto, image: ImageInput) -> None:
    """Let a network that takes float32 (N, C, H, W) take the type and the layout of `image`."""
    graph = model.graph
    (value,) = [value for value in graph.input if value.name == image.name]
    batch, channels, height, width = (size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim)
    shape = [batch, channels, height, width] if image.layout == "NCHW" else [batch, height, width, channels]
    if image.layout == "NHWC":
        _insert_first(graph, image.name, "nchw", helper.make_node("Transpose", [], [], perm=TO_NCHW))
    if image.dtype == "uint8":
        _insert_first(graph, image.name, "float32", helper.make_node("Cast", [], [], to=TensorProto.FLOAT))
    kind = TensorProto.UINT8 if image.dtype == "uint8" else TensorProto.FLOAT
    value.CopyFrom(helper.make_tensor_value_info(image.name, kind, shape))
    onnx.checker.check_model(model, full_check=True)


def fix_batch(model: onnx.ModelProto, batch: int = 1) -> None:
    """Fix an open batch, also that of outputs with the same name for it."""
    (value,) = model.graph.input
    name = value.type.tensor_type.shape.dim[0].dim_param
    for end in (value, *model.graph.output):
        for size in end.type.tensor_type.shape.dim[:1]:
            if size.dim_param == name:
                size.dim_value = batch


def _fix_named_sizes(
    graph: onnx.GraphProto, value: onnx.ValueInfoProto, image: ImageInput, sides: tuple[int, int]
) -> None:
    """Give open sizes of outputs that have the name of an open side the value of that side."""
    sizes = list(value.type.tensor_type.shape.dim)
    if not sizes:
        return
    batch, *rest = (size.dim_param for size in sizes)
    rest.pop(0 if image.layout == "NCHW" else 2)
    known = {name: side for name, side in zip(rest, sides, strict=True) if name and name != batch}
    if known:
        del graph.value_info[:]
    for output in graph.output:
        for size in output.type.tensor_type.shape.dim:
            if size.dim_param in known:
                size.dim_value = known[size.dim_param]


def _insert_first(graph: onnx.GraphProto, name: str, suffix: str, node: NodeProto) -> None:
    """Insert `node` between the input and everything that reads it."""
    used = {output for node in graph.node for output in node.output} | {tensor.name for tensor in graph.initializer}
    result = f"{name}_{suffix}"
    while result in used:
        result += "_"
    for reader in graph.node:
        for position, read in enumerate(reader.input):
            if read == name:
                reader.input[position] = result
    node.name = result
    node.input.append(name)
    node.output.append(result)
    nodes = [node, *map(_copy, graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)


def _write_dequantized_pixels(graph: onnx.GraphProto, name: str) -> None:
    """Replace each DequantizeLinear of pixels by operators that compute (pixels - zero point) * scale."""
    pixels, nodes = {name}, list[NodeProto]()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in pixels:
            nodes += _dequantized(graph, node)
            continue
        if node.op_type in MOVING_OPS and node.input[0] in pixels:
            pixels.update(node.output)
        nodes.append(_copy(node))
    del graph.node[:]
    graph.node.extend(nodes)


def _dequantized(graph: onnx.GraphProto, node: NodeProto) -> list[NodeProto]:
    """Return the operators; scale and zero point are numbers, or vectors along an axis of the four."""
    (result,), (pixels, scale, *zero_point) = node.output, node.input
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    sides = f"{result}_sides"
    graph.initializer.append(numpy_helper.from_array(np.asarray([-1] + [1] * ((3 - axis) % 4)), sides))
    nodes = [helper.make_node("Cast", [pixels], [f"{result}_pixels"], to=TensorProto.FLOAT)]
    product = [f"{result}_pixels", f"{result}_scale"]
    if any(zero_point):
        product[0] = f"{result}_difference"
        nodes += [
            helper.make_node("Cast", zero_point, [f"{result}_zero"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", [f"{result}_zero", sides], [f"{result}_zeros"]),
            helper.make_node("Sub", [f"{result}_pixels", f"{result}_zeros"], [product[0]]),
        ]
    return [
        *nodes,
        helper.make_node("Reshape", [scale, sides], [product[1]]),
        helper.make_node("Mul", product, [result]),
    ]


def _require_unchanged_pixels(graph: onnx.GraphProto, name: str) -> None:
    """Raise InputError unless the pixels are only moved before they are converted."""
    pending, visited = [name], set[str]()
    while pending:
        tensor = pending.pop()
        for node in graph.node:
            if tensor not in node.input or node.op_type in ENDS or node.output[0] in visited:
                continue
            if node.op_type not in MOVING_OPS:
                raise InputError(
                    f"the model computes with uint8 pixels in '{node.name or node.output[0]}' ({node.op_type}); export "
                    "it so that it converts them to float first"
                )
            visited.add(node.output[0])
            pending += node.output


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
