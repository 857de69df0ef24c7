"""Distinguish logits from probabilities by the last activation of a graph."""

from __future__ import annotations

from typing import Literal

import onnx

from runtimes.artifact import Output
from runtimes.errors import InputError

SHAPE_OPS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose")  # keep every value

Activation = Literal["Softmax", "Sigmoid"]
ACTIVATIONS: dict[str, Activation] = {"Softmax": "Softmax", "Sigmoid": "Sigmoid", "HardSigmoid": "Sigmoid"}


def last_activation(model: onnx.ModelProto) -> Activation | None:
    """Return the activation that computes the graph's output: Softmax, Sigmoid (also a HardSigmoid) or None."""
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers.get(model.graph.output[0].name)
    while node is not None and node.op_type in SHAPE_OPS:
        node = producers.get(node.input[0])
    return None if node is None else ACTIVATIONS.get(node.op_type)


def described(model: onnx.ModelProto, columns: int) -> tuple[tuple[str, ...], Output]:
    """Return the labels of a file without class names, and what its output means. columns: of the output.

    One column after a Sigmoid is the probability of the second of two classes. One column without a Sigmoid may be a
    regression: it has a single label, so that nothing judges it as a class. Raises InputError for one column after a
    Softmax.
    """
    activation = last_activation(model)
    if columns == 1 and activation == "Softmax":
        raise InputError("the model ends in a Softmax of one value, which is always 1; for two classes, end it in a "
                         "Sigmoid, or in a Softmax of two values")  # fmt: skip
    is_binary = columns == 1 and activation == "Sigmoid"
    labels = tuple(str(index) for index in range(2 if is_binary else columns))
    return labels, "probabilities" if is_binary or (activation == "Softmax" and columns > 1) else "logits"
