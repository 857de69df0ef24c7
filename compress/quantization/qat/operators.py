"""ONNX operators of float32 graphs in PyTorch, with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from runtimes.errors import InputError

Attributes: TypeAlias = dict[str, Any]
Inputs: TypeAlias = list[Any]  # tensors; None for an optional input that is not there
Operator: TypeAlias = Callable[[Inputs, Attributes], Any]  # a tensor, or a sequence of them

TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64}


def compute(node: NodeProto, inputs: Inputs) -> list[Tensor]:
    """Return the outputs of a node; raises InputError for an operator that is not known."""
    if node.op_type not in OPERATORS:
        raise InputError(f"qat: the operator {node.op_type} ('{node.name}') is not supported; remove the stage qat")
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    outputs = OPERATORS[node.op_type](inputs, attributes)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _sizes(tensor: Tensor) -> list[int]:
    return [int(size) for size in tensor.tolist()]


def _axes(inputs: Inputs, at: Attributes) -> list[int]:
    return _sizes(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else list(at.get("axes", ()))


def _optional(inputs: Inputs, index: int) -> Any:  # Any: None or a tensor
    return inputs[index] if len(inputs) > index else None


def _clip(inputs: Inputs, at: Attributes) -> Tensor:
    low, high = _optional(inputs, 1), _optional(inputs, 2)
    bounds = [None if bound is None else float(bound) for bound in (low, high)]
    clamped: Tensor = inputs[0] if bounds == [None, None] else torch.clamp(inputs[0], *bounds)
    return clamped


def _padded(value: Tensor, at: Attributes, fill: float) -> Tensor:
    pads = list(at.get("pads", ()))
    half = len(pads) // 2
    order = [pad for axis in reversed(range(half)) for pad in (pads[axis], pads[half + axis])]
    return functional.pad(value, order, value=fill) if any(pads) else value


def _conv(inputs: Inputs, at: Attributes) -> Tensor:
    value = _padded(inputs[0], at, 0.0)
    function = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[value.ndim]
    ones = [1] * (value.ndim - 2)
    result: Tensor = function(
        value, inputs[1], _optional(inputs, 2), at.get("strides", ones), 0, at.get("dilations", ones),
        at.get("group", 1),
    )  # fmt: skip
    return result


def _gemm(inputs: Inputs, at: Attributes) -> Tensor:
    left = inputs[0].T if at.get("transA", 0) else inputs[0]
    right = inputs[1].T if at.get("transB", 0) else inputs[1]
    product: Tensor = at.get("alpha", 1.0) * (left @ right)
    bias = _optional(inputs, 2)
    return product if bias is None else product + at.get("beta", 1.0) * bias


def _max_pool(inputs: Inputs, at: Attributes) -> Tensor:
    value = _padded(inputs[0], at, -math.inf)
    return functional.max_pool2d(
        value, at["kernel_shape"], at.get("strides", 1), 0, at.get("dilations", 1), bool(at.get("ceil_mode", 0))
    )


def _average_pool(inputs: Inputs, at: Attributes) -> Tensor:
    kernel, strides, ceil = at["kernel_shape"], at.get("strides", 1), bool(at.get("ceil_mode", 0))
    sums = functional.avg_pool2d(_padded(inputs[0], at, 0.0), kernel, strides, 0, ceil)
    if not any(at.get("pads", ())) or at.get("count_include_pad", 0):
        return sums
    counted = _padded(torch.ones_like(inputs[0][:1, :1]), at, 0.0)
    return sums / functional.avg_pool2d(counted, kernel, strides, 0, ceil)


def _reshape(inputs: Inputs, at: Attributes) -> Tensor:
    sizes = _sizes(inputs[1])
    if not at.get("allowzero", 0):
        sizes = [inputs[0].shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    reshaped: Tensor = inputs[0].reshape(sizes)
    return reshaped


def _flatten(inputs: Inputs, at: Attributes) -> Tensor:
    rows = math.prod(inputs[0].shape[: at.get("axis", 1)])
    flat: Tensor = inputs[0].reshape(rows, -1)
    return flat


def _squeeze(inputs: Inputs, at: Attributes) -> Tensor:
    axes = _axes(inputs, at)
    squeezed: Tensor = inputs[0].squeeze(tuple(axes)) if axes else inputs[0].squeeze()
    return squeezed


def _unsqueeze(inputs: Inputs, at: Attributes) -> Tensor:
    value: Tensor = inputs[0]
    for axis in sorted(axis % (value.ndim + len(_axes(inputs, at))) for axis in _axes(inputs, at)):
        value = value.unsqueeze(axis)
    return value


def _slice(inputs: Inputs, at: Attributes) -> Tensor:
    starts, ends = _sizes(inputs[1]), _sizes(inputs[2])
    axes = _sizes(inputs[3]) if _optional(inputs, 3) is not None else list(range(len(starts)))
    steps = _sizes(inputs[4]) if _optional(inputs, 4) is not None else [1] * len(starts)
    value: Tensor = inputs[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(value.shape[axis])[start:end:step]
        value = value.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=value.device))
    return value


def _split(inputs: Inputs, at: Attributes) -> list[Tensor]:
    axis = at.get("axis", 0)
    if _optional(inputs, 1) is not None:
        return list(inputs[0].split(_sizes(inputs[1]), axis))
    return list(inputs[0].tensor_split(at["num_outputs"], axis))


def _gather(inputs: Inputs, at: Attributes) -> Tensor:
    axis, value = at.get("axis", 0), inputs[0]
    index = inputs[1].to(value.device) % value.shape[axis]
    axis %= value.ndim
    chosen: Tensor = value.index_select(axis, index.flatten())
    return chosen.reshape(*value.shape[:axis], *index.shape, *value.shape[axis + 1 :])


def _pad(inputs: Inputs, at: Attributes) -> Tensor:
    pads, value, fill = _sizes(inputs[1]), inputs[0], _optional(inputs, 2)
    axes = _sizes(inputs[3]) if _optional(inputs, 3) is not None else list(range(value.ndim))
    sides = [(0, 0)] * value.ndim
    for index, axis in enumerate(axes):
        sides[axis] = pads[index], pads[len(axes) + index]
    order = [pad for side in reversed(sides) for pad in side]
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}[at.get("mode", b"constant")]
    if mode != "constant":
        return functional.pad(value, order[:4], mode)
    return functional.pad(value, order, mode, 0.0 if fill is None else float(fill))


def _resize(inputs: Inputs, at: Attributes) -> Tensor:
    value, scales, sizes = inputs[0], _optional(inputs, 2), _optional(inputs, 3)
    if sizes is not None and sizes.numel():
        size = _sizes(sizes)[-2:]
    else:
        size = [math.floor(side * scale) for side, scale in zip(value.shape[2:], scales.tolist()[-2:], strict=True)]
    mode = {b"nearest": "nearest", b"linear": "bilinear", b"cubic": "bicubic"}[at.get("mode", b"nearest")]
    corners = at.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
    return functional.interpolate(value, size, mode=mode, align_corners=None if mode == "nearest" else corners)


def _expand(inputs: Inputs, at: Attributes) -> Tensor:
    ones = torch.ones(_sizes(inputs[1]), dtype=inputs[0].dtype, device=inputs[0].device)
    expanded: Tensor = inputs[0].expand_as(inputs[0] * ones)
    return expanded


def _reduced(function: Callable[..., Tensor]) -> Operator:
    """Return the operator of a function of (value, dims, keepdim)."""

    def reduce(inputs: Inputs, at: Attributes) -> Tensor:
        axes = _axes(inputs, at)
        if not axes and at.get("noop_with_empty_axes", 0):
            unchanged: Tensor = inputs[0]
            return unchanged
        return function(inputs[0], axes or list(range(inputs[0].ndim)), bool(at.get("keepdims", 1)))

    return reduce


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Return the operator that applies a function of two tensors to any number of inputs."""

    def fold(inputs: Inputs, at: Attributes) -> Tensor:
        result: Tensor = inputs[0]
        for value in inputs[1:]:
            result = function(result, value)
        return result

    return fold


def _layer_norm(inputs: Inputs, at: Attributes) -> Tensor:
    shape = list(inputs[0].shape[at.get("axis", -1) % inputs[0].ndim :])
    return functional.layer_norm(inputs[0], shape, inputs[1], _optional(inputs, 2), at.get("epsilon", 1e-5))


def _group_norm(inputs: Inputs, at: Attributes) -> Tensor:
    return functional.group_norm(inputs[0], at["num_groups"], inputs[1], inputs[2], at.get("epsilon", 1e-5))


def _batch_norm(inputs: Inputs, at: Attributes) -> Tensor:
    value, weight, bias, mean, variance = inputs
    return functional.batch_norm(value, mean, variance, weight, bias, False, 0.0, at.get("epsilon", 1e-5))


def _hard_sigmoid(inputs: Inputs, at: Attributes) -> Tensor:
    scaled: Tensor = inputs[0] * at.get("alpha", 0.2) + at.get("beta", 0.5)
    return scaled.clamp(0, 1)


def _gelu(inputs: Inputs, at: Attributes) -> Tensor:
    return functional.gelu(inputs[0], approximate=at.get("approximate", b"none").decode())


def _prelu(inputs: Inputs, at: Attributes) -> Tensor:
    result: Tensor = inputs[0].clamp(min=0) + inputs[0].clamp(max=0) * inputs[1]
    return result


def _transpose(inputs: Inputs, at: Attributes) -> Tensor:
    moved: Tensor = inputs[0].permute(tuple(at.get("perm", range(inputs[0].ndim)[::-1])))
    return moved


def _depth_to_space(inputs: Inputs, at: Attributes) -> Tensor:
    if at.get("mode", b"DCR") == b"CRD":
        return functional.pixel_shuffle(inputs[0], at["blocksize"])
    count, channels, height, width = inputs[0].shape
    block = at["blocksize"]
    parts = inputs[0].reshape(count, block, block, channels // block**2, height, width)
    shuffled: Tensor = parts.permute(0, 3, 4, 1, 5, 2).reshape(count, -1, height * block, width * block)
    return shuffled


def _number(at: Attributes) -> Any:  # Any: an integer, or a float, whose type the result has
    return numpy_helper.to_array(at["value"]).item() if "value" in at else 0.0


OPERATORS: dict[str, Operator] = {
    # Each value alone
    "Relu": lambda inputs, _: inputs[0].relu(),
    "Clip": _clip,
    "HardSwish": lambda inputs, _: functional.hardswish(inputs[0]),
    "HardSigmoid": _hard_sigmoid,
    "Sigmoid": lambda inputs, _: inputs[0].sigmoid(),
    "LeakyRelu": lambda inputs, at: functional.leaky_relu(inputs[0], at.get("alpha", 0.01)),
    "PRelu": _prelu,
    "Elu": lambda inputs, at: functional.elu(inputs[0], at.get("alpha", 1.0)),
    "Selu": lambda inputs, _: functional.selu(inputs[0]),
    "Gelu": _gelu,
    "Mish": lambda inputs, _: functional.mish(inputs[0]),
    "Swish": lambda inputs, at: inputs[0] * (inputs[0] * at.get("alpha", 1.0)).sigmoid(),
    "Softplus": lambda inputs, _: functional.softplus(inputs[0]),
    "Softsign": lambda inputs, _: functional.softsign(inputs[0]),
    "Tanh": lambda inputs, _: inputs[0].tanh(),
    "Erf": lambda inputs, _: inputs[0].erf(),
    "Exp": lambda inputs, _: inputs[0].exp(),
    "Log": lambda inputs, _: inputs[0].log(),
    "Sqrt": lambda inputs, _: inputs[0].sqrt(),
    "Reciprocal": lambda inputs, _: inputs[0].reciprocal(),
    "Abs": lambda inputs, _: inputs[0].abs(),
    "Neg": lambda inputs, _: -inputs[0],
    "Floor": lambda inputs, _: inputs[0].floor(),
    "Ceil": lambda inputs, _: inputs[0].ceil(),
    "Round": lambda inputs, _: inputs[0].round(),
    "Sign": lambda inputs, _: inputs[0].sign(),
    "Sin": lambda inputs, _: inputs[0].sin(),
    "Cos": lambda inputs, _: inputs[0].cos(),
    "Celu": lambda inputs, at: functional.celu(inputs[0], at.get("alpha", 1.0)),
    "ThresholdedRelu": lambda inputs, at: functional.threshold(inputs[0], at.get("alpha", 1.0), 0.0),
    "Not": lambda inputs, _: inputs[0].logical_not(),
    "Cast": lambda inputs, at: inputs[0].to(TYPES[at["to"]]),
    "Identity": lambda inputs, _: inputs[0],
    "Dropout": lambda inputs, _: inputs[0],
    # Several tensors
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Div": lambda inputs, _: torch.div(*inputs, rounding_mode=None if inputs[0].is_floating_point() else "trunc"),
    "Pow": lambda inputs, _: inputs[0] ** inputs[1],
    "Mod": lambda inputs, at: torch.fmod(*inputs) if at.get("fmod", 0) else torch.remainder(*inputs),
    "Sum": _folded(torch.add),
    "Max": _folded(torch.maximum),
    "Min": _folded(torch.minimum),
    "Equal": lambda inputs, _: inputs[0] == inputs[1],
    "Greater": lambda inputs, _: inputs[0] > inputs[1],
    "Less": lambda inputs, _: inputs[0] < inputs[1],
    "GreaterOrEqual": lambda inputs, _: inputs[0] >= inputs[1],
    "LessOrEqual": lambda inputs, _: inputs[0] <= inputs[1],
    "And": lambda inputs, _: inputs[0].logical_and(inputs[1]),
    "Or": lambda inputs, _: inputs[0].logical_or(inputs[1]),
    "Where": lambda inputs, _: torch.where(*inputs),
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "Einsum": lambda inputs, at: torch.einsum(at["equation"].decode(), *inputs),
    "Gemm": _gemm,
    "Conv": _conv,
    # Normalization and pooling
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": lambda inputs, at: functional.instance_norm(
        inputs[0], weight=inputs[1], bias=inputs[2], eps=at.get("epsilon", 1e-5)
    ),
    "Softmax": lambda inputs, at: inputs[0].softmax(at.get("axis", -1)),
    "LogSoftmax": lambda inputs, at: inputs[0].log_softmax(at.get("axis", -1)),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda inputs, _: inputs[0].amax((2, 3), keepdim=True),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMin": _reduced(torch.amin),
    "ReduceL1": _reduced(lambda value, dims, keep: torch.linalg.vector_norm(value, 1, dims, keep)),
    "CumSum": lambda inputs, _: inputs[0].cumsum(int(inputs[1])),
    "ReduceL2": _reduced(lambda value, dims, keep: torch.linalg.vector_norm(value, 2, dims, keep)),
    "Resize": _resize,
    "Pad": _pad,
    # Moving values
    "Concat": lambda inputs, at: torch.cat(inputs, at["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": lambda inputs, at: inputs[0].gather(at.get("axis", 0), inputs[1].to(inputs[0].device)),
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": lambda inputs, _: inputs[0].repeat(_sizes(inputs[1])),
    "DepthToSpace": _depth_to_space,
    # Shapes
    "Shape": lambda inputs, at: torch.tensor(inputs[0].shape[at.get("start", 0) : at.get("end")]),
    "Range": lambda inputs, _: torch.arange(*(value.item() for value in inputs)),
    "ConstantOfShape": lambda inputs, at: torch.full(_sizes(inputs[0]), _number(at)),
}
