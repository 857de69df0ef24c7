"""Distinguish logits from probabilities by the last activation of a graph."""

from __future__ import annotations

from typing import Literal

import onnx

from runtimes.artifact import Output

SHAPE_OPS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose")  # keep every value

Activation = Literal["Softmax", "Sigmoid"]


def last_activation(model: onnx.ModelProto) -> Activation | None:
    """Return the Softmax or Sigmoid that computes the graph's output, None if something else does."""
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers.get(model.graph.output[0].name)
    while node is not None and node.op_type in SHAPE_OPS:
        node = producers.get(node.input[0])
    if node is None or node.op_type not in ("Softmax", "Sigmoid"):
        return None
    return "Softmax" if node.op_type == "Softmax" else "Sigmoid"


def described(model: onnx.ModelProto, columns: int) -> tuple[tuple[str, ...], Output]:
    """Return the labels of a file without class names, and what its output means. columns: of the output.

    One column after a Sigmoid is the probability of the second of two classes. One column without a Sigmoid may be a
    regression: it has a single label, so that nothing judges it as a class.
    """
    activation = last_activation(model)
    is_binary = columns == 1 and activation == "Sigmoid"
    labels = tuple(str(index) for index in range(2 if is_binary else columns))
    return labels, "probabilities" if is_binary or (activation == "Softmax" and columns > 1) else "logits"
