"""Find out what images an ONNX network takes: type, layout, number of channels and size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto, helper

from runtimes.artifact import InputDtype, InputLayout
from runtimes.errors import InputError
from runtimes.preprocessing import MAX_SIDE

MAX_CHANNELS = 1024
PICTURE_CHANNELS = (1, 3, 4)
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
# Operators that take (N, C, H, W), and the input of those whose weights tell C.
CHANNELS_FIRST = frozenset({
    "Conv", "BatchNormalization", "InstanceNormalization", "GlobalAveragePool", "GlobalMaxPool", "AveragePool",
    "MaxPool", "LpPool", "LRN", "SpaceToDepth",
})  # fmt: skip
SAME_AXES = frozenset({
    "Cast", "Identity", "Sub", "Add", "Mul", "Div", "Clip", "Pad", "Neg", "Resize", "Upsample", "Relu", "Sigmoid",
    "DequantizeLinear", "QuantizeLinear",
})  # fmt: skip
OTHER_CHANNELS = frozenset({"Slice", "Gather", "Concat", "Split"})  # may also change the number of channels


@dataclass(frozen=True)
class ImageInput:
    """The input of a network of images. dtype: that of its file; float16 and others of float count as float32.

    batch, channels, height, width: None if the file leaves them open.
    """

    name: str
    dtype: InputDtype
    layout: InputLayout
    batch: int | None
    channels: int | None
    height: int | None
    width: int | None

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """(height, width)."""
        return self.height, self.width

    @property
    def sides_text(self) -> str:
        """Height and width as --crop takes them, with a question mark for an open side."""
        if self.height == self.width and self.height is not None:
            return str(self.height)
        return "x".join("?" if side is None else str(side) for side in self.sides)


def image_input(model: onnx.ModelProto) -> ImageInput:
    """Return what images a network takes.

    The layout is that of the first operator which needs one, such as a Conv; without one, the sizes decide. Raises
    InputError, with advice, if the network has other inputs, or one that can't be an image.
    """
    value = _only_input(model)
    kind = value.type.tensor_type.elem_type
    if kind not in (*FLOAT_TYPES, TensorProto.UINT8):
        raise InputError(f"the model's input '{value.name}' is {TensorProto.DataType.Name(kind).lower()}; images are "
                         "float32, float16 or uint8; export the network so that it takes images")  # fmt: skip
    sizes = [dimension.dim_value or None for dimension in value.type.tensor_type.shape.dim] or [None] * 4
    if len(sizes) != 4:
        advice = "with a batch axis" if len(sizes) == 3 else "so that it takes (N, C, H, W) or (N, H, W, C)"
        raise InputError(f"the model's input '{value.name}' is {_text(sizes)}, not a batch of images; export the "
                         f"network {advice}")  # fmt: skip
    axes, channels = _traced(model, value.name)
    layout = _layout(axes, sizes, value.name)
    batch, *rest = sizes
    declared = rest.pop(0 if layout == "NCHW" else 2)
    height, width = rest
    channels = declared or channels
    if any(side is not None and not 1 <= side <= MAX_SIDE for side in rest) or (channels or 1) > MAX_CHANNELS:
        raise InputError(f"the model's input '{value.name}' is {_text(sizes)}, not images of at most {MAX_SIDE} x "
                         f"{MAX_SIDE} pixels and {MAX_CHANNELS} channels")  # fmt: skip
    dtype: InputDtype = "uint8" if kind == TensorProto.UINT8 else "float32"
    return ImageInput(value.name, dtype, layout, batch, channels, height, width)


def _only_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = f" ({', '.join(value.name for value in inputs[:5])})" if inputs else ""
        raise InputError(f"the model has {len(inputs)} inputs{names}, not one of images; export the network with its "
                         "images as the only input, and everything else as constants")  # fmt: skip
    if not inputs[0].type.HasField("tensor_type"):
        raise InputError(f"the model's input '{inputs[0].name}' is no tensor; export the network so that it takes "
                         "images")  # fmt: skip
    only: onnx.ValueInfoProto = inputs[0]
    return only


def _layout(axes: tuple[int, ...] | None, sizes: list[int | None], name: str) -> InputLayout:
    if axes is None:
        return _guessed(sizes)
    if axes not in ((0, 1, 2, 3), (0, 3, 1, 2)):
        order = "".join("NCHW"[axes.index(axis)] for axis in range(4))
        raise InputError(f"the model's input '{name}' has the axes {order}; export the network so that it takes NCHW "
                         "or NHWC")  # fmt: skip
    return "NCHW" if axes == (0, 1, 2, 3) else "NHWC"


def _guessed(sizes: list[int | None]) -> InputLayout:
    """Return the layout in which the channels are few, else that in which height and width are equal."""
    _, first, middle, last = sizes
    if last in PICTURE_CHANNELS and first not in PICTURE_CHANNELS:
        return "NHWC"
    is_nhwc = first is not None and first == middle and last is not None and last != middle
    return "NHWC" if is_nhwc and first not in PICTURE_CHANNELS else "NCHW"


def _traced(model: onnx.ModelProto, name: str) -> tuple[tuple[int, ...] | None, int | None]:
    """Return which axes of the input are N, C, H and W, and the number of channels; None for what is not known."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for read in dict.fromkeys(node.input):
            readers.setdefault(read, []).append(node)
    pending: list[tuple[str, tuple[int, ...], bool]] = [(name, (0, 1, 2, 3), True)]
    visited = set()
    while pending:
        tensor, axes, is_whole = pending.pop(0)
        for node in readers.get(tensor, []):
            if node.op_type in CHANNELS_FIRST and node.input[0] == tensor:
                return axes, _channels(node, weights) if is_whole else None
            if node.output[0] not in visited:
                visited.add(node.output[0])
                pending += _followed(node, axes, is_whole)
    return None, None


def _followed(node: NodeProto, axes: tuple[int, ...], is_whole: bool) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Yield the outputs of an operator that keeps or permutes the axes, with the axes of the input that they have."""
    if node.op_type == "Transpose":
        order = next((attribute.ints for attribute in node.attribute if attribute.name == "perm"), (3, 2, 1, 0))
        if len(order) == 4:
            yield node.output[0], tuple(axes[axis] for axis in order), is_whole
    elif node.op_type in SAME_AXES or node.op_type in OTHER_CHANNELS:
        for output in node.output:
            yield output, axes, is_whole and node.op_type in SAME_AXES


def _channels(node: NodeProto, weights: dict[str, tuple[int, ...]]) -> int | None:
    """Return the number of channels that a node takes, from the shape of its weights."""
    shape = weights.get(node.input[1], ()) if len(node.input) > 1 else ()
    if node.op_type == "Conv" and len(shape) > 1:
        group = next((helper.get_attribute_value(item) for item in node.attribute if item.name == "group"), 1)
        return int(shape[1] * group)
    return math.prod(shape) if node.op_type.endswith("Normalization") and shape else None


def _text(sizes: list[int | None]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in sizes) + ")"
