"""Describe the outputs of a graph: their kind, and whether they are logits or probabilities."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from export.subgraph import computed_from_values
from runtimes.artifact import Output
from runtimes.errors import InputError
from runtimes.outputs.detections import decoder_of
from runtimes.outputs.kinds import Arrays, OutputKind

CHOOSING_OPS = ("ArgMax", "ArgMin", "TopK")  # their outputs change at once where two values are nearly equal
COMPARING_OPS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")  # likewise
SHAPE_OPS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose")  # keep every value
EMBEDDING_NAME = re.compile("embed|feature|descriptor", re.IGNORECASE)
EMBEDDING_LENGTH_TOLERANCE = 1e-3
MIN_EMBEDDING = 16  # values; shorter vectors of length 1 may be anything
MAX_PIXEL_CLASSES = 256  # more channels are features
LARGEST_PIXEL_STRIDE = 16  # sides of the image over those of a segmentation; smaller maps are features

Activation = Literal["Softmax", "Sigmoid"]
ACTIVATIONS: dict[str, Activation] = {"Softmax": "Softmax", "Sigmoid": "Sigmoid", "HardSigmoid": "Sigmoid"}


@dataclass(frozen=True)
class Head:
    """Description of the outputs for a manifest. labels: numbers, as the file has no names; empty without classes."""

    kind: OutputKind
    labels: tuple[str, ...] = ()
    output: Output = "logits"


def last_activation(model: onnx.ModelProto) -> Activation | None:
    """Return the activation that computes the graph's first output: Softmax, Sigmoid (also a HardSigmoid) or None."""
    producers = {name: node for node in model.graph.node for name in node.output}
    node = _last_operator(model.graph.output[0].name, producers)
    return None if node is None else ACTIVATIONS.get(node.op_type)


def compared_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors that show how well a quantized graph reproduces the outputs: usually the outputs.

    For outputs behind non-maximum suppression, whose order and number change with every rounding, these are the boxes
    and scores before it; for the number or the name of the largest value, and for comparisons, these are the values.
    Outputs that do not depend on the images are left out.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    unchanging = unchanging_outputs(model)
    names: list[str] = []
    for output in model.graph.output:
        if output.name in unchanging:
            continue
        suppressions = [node for node in _ancestors(output.name, producers) if node.op_type == "NonMaxSuppression"]
        last = _last_operator(output.name, producers)
        if last is not None and last.op_type == "Gather" and last.input[0] in constants:  # of a table of names
            last = _last_operator(last.input[1], producers)
        if suppressions:
            names += [name for node in suppressions for name in node.input[:2]]
        elif last is not None and last.op_type in CHOOSING_OPS:
            names.append(last.input[0])
        elif last is not None and last.op_type in COMPARING_OPS:
            names += [name for name in last.input if name not in constants]
        else:
            names.append(output.name)
    return tuple(dict.fromkeys(names))


def unchanging_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the outputs that do not depend on the values of the images, as the anchors of a detector."""
    changing = computed_from_values(model)
    return tuple(value.name for value in model.graph.output if value.name not in changing)


def unchanging_text(names: tuple[str, ...]) -> str:
    """Say that outputs do not depend on the images."""
    quoted = ", ".join(f"'{name}'" for name in names)
    if len(names) > 1:
        return f"the outputs {quoted} do not depend on the images and are not judged"
    return f"the output {quoted} does not depend on the images and is not judged"


def _last_operator(name: str, producers: dict[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """Return the node that computes a tensor's values, before those that only give them another shape or type."""
    node = producers.get(name)
    while node is not None and node.op_type in SHAPE_OPS:
        node = producers.get(node.input[0])
    return node


def _ancestors(name: str, producers: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes that compute a tensor."""
    nodes: dict[str, onnx.NodeProto] = {}
    pending = [name]
    while pending:
        node = producers.get(pending.pop())
        if node is not None and node.output[0] not in nodes:
            nodes[node.output[0]] = node
            pending += node.input
    return list(nodes.values())


def described(model: onnx.ModelProto, outputs: Arrays, sides: tuple[int, int]) -> Head:
    """Return what a graph's outputs mean, from their values for one or more images of noise.

    outputs: all outputs of the graph, with the batch axis. sides: height and width of the images. One value after a
    Sigmoid is the probability of the second of two classes. One value without a Sigmoid may be a regression: it has a
    single label, so that nothing judges it as a class. Of several outputs, the first decides unless they are boxes.
    Raises InputError for one value after a Softmax, and if no output depends on the images.
    """
    unchanging = unchanging_outputs(model)
    if len(unchanging) == len(model.graph.output):
        raise InputError(f"no output of the model depends on the images ('{unchanging[0]}' is a constant); export the "
                         "network with its results as outputs")  # fmt: skip
    activation = last_activation(model)
    first, name = outputs[0], model.graph.output[0].name
    output: Output = "probabilities" if activation is not None else "logits"
    is_own = compared_tensors(model)[0] == name  # not of boxes or of the largest values
    if is_own and _is_vector(first) and len(first):
        return _vector_head(model, first, activation)
    if name not in unchanging and _is_segmentation(first, sides, activation):
        return Head("segmentation", output=output)
    fixed = {index for index, value in enumerate(model.graph.output) if value.name in unchanging}
    changing = tuple(values for index, values in enumerate(outputs) if index not in fixed)
    if (len(changing) > 1 or activation != "Softmax") and _are_boxes(changing):
        return Head("detections")
    return Head("other")


def require_rows(model: onnx.ModelProto, head: Head, outputs: Arrays, images: int) -> None:
    """Raise InputError if an output that depends on the images has no row for each.

    Detectors may return as many boxes as they find.
    """
    changing = {value.name for value in model.graph.output}.difference(unchanging_outputs(model))
    shapes = [values.shape for value, values in zip(model.graph.output, outputs, strict=True)
              if value.name in changing and values.shape[:1] != (images,)]  # fmt: skip
    if shapes and head.kind != "detections":
        raise InputError(f"returns {shapes[0]} for {images} images: the first axis of an output must be the "
                         "batch; export the model so, or with batch 1")  # fmt: skip


def _vector_head(model: onnx.ModelProto, values: npt.NDArray[Any], activation: Activation | None) -> Head:
    columns = math.prod(values.shape[1:])
    if columns == 1 and activation == "Softmax":
        raise InputError("the model ends in a Softmax of one value, which is always 1; for two classes, end it in a "
                         "Sigmoid, or in a Softmax of two values")  # fmt: skip
    if columns == 1:
        is_sigmoid = activation == "Sigmoid"
        return Head("binary", ("0", "1") if is_sigmoid else ("0",), "probabilities" if is_sigmoid else "logits")
    if activation is None and _is_embedding(model.graph.output[0].name, values):
        return Head("embedding")
    labels = tuple(str(index) for index in range(columns))
    return Head("classes", labels, "probabilities" if activation == "Softmax" else "logits")


def _is_vector(values: npt.NDArray[Any]) -> bool:
    """Return whether an output holds one vector of floats for each image: (N,), (N, C), (N, C, 1, 1), (N, 1, C)."""
    is_float = np.issubdtype(values.dtype, np.floating)
    return is_float and values.ndim > 0 and sum(size > 1 for size in values.shape[1:]) <= 1


def _is_embedding(name: str, values: npt.NDArray[Any]) -> bool:
    """Return whether vectors have the length 1, or a name that says so."""
    lengths = np.linalg.norm(values.reshape(len(values), -1), axis=1)
    is_normed = bool(np.abs(lengths - 1).max() < EMBEDDING_LENGTH_TOLERANCE)
    return bool(EMBEDDING_NAME.search(name)) or (is_normed and values[0].size >= MIN_EMBEDDING)


def _is_segmentation(values: npt.NDArray[Any], sides: tuple[int, int], activation: Activation | None) -> bool:
    """Return whether an output has a class of each pixel: (N, C, h, w), (N, h, w, C), or integers without channels."""
    if values.ndim not in (3, 4) or min(sides) < LARGEST_PIXEL_STRIDE:
        return False
    if not np.issubdtype(values.dtype, np.floating):
        return _covers(values.shape[-2:], sides)
    if values.ndim == 3:
        return activation == "Sigmoid" and _covers(values.shape[1:], sides)
    _, first, middle, last = values.shape
    for channels, shape in ((first, (middle, last)), (last, (first, middle))):
        is_mask = channels == 1 and activation == "Sigmoid"
        if (is_mask or 2 <= channels <= MAX_PIXEL_CLASSES) and _covers(shape, sides):
            return True
    return False


def _covers(shape: tuple[int, ...], sides: tuple[int, int]) -> bool:
    """Return whether a map has the shape of the image at one of the usual strides."""
    return all(side / LARGEST_PIXEL_STRIDE <= size <= side for size, side in zip(shape, sides, strict=True))


def _are_boxes(outputs: Arrays) -> bool:
    of_one_image = tuple(values[0] if values.ndim > 1 and len(values) else values for values in outputs)
    return decoder_of(of_one_image) is not None or decoder_of(outputs) is not None
