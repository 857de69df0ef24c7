"""The meaning of a graph's output is told by its last activation and its number of columns."""

from __future__ import annotations

import onnx
import onnx_graphs
import pytest
from onnx import helper

from export.head import described, last_activation
from runtimes.errors import InputError


def ending_in(*operators: str) -> onnx.ModelProto:
    """Return a classifier whose output goes through operators that keep the shape."""
    model = onnx_graphs.residual_model(channels=3)
    model.graph.node[-1].output[0] = "0"
    for index, operator in enumerate(operators):
        output = "y" if index == len(operators) - 1 else str(index + 1)
        model.graph.node.append(helper.make_node(operator, [str(index)], [output], name=f"last{index}"))
    return model


@pytest.mark.parametrize(("operators", "activation"), [
    (("Sigmoid",), "Sigmoid"), (("Softmax",), "Softmax"), (("Sigmoid", "Identity"), "Sigmoid"),
    (("Softmax", "Flatten", "Identity"), "Softmax"), (("Relu",), None), (("Sigmoid", "Relu"), None),
    (("Identity",), None),
])  # fmt: skip
def test_the_last_activation_is_found_behind_operators_that_keep_values(
    operators: tuple[str, ...], activation: str | None
) -> None:
    assert last_activation(ending_in(*operators)) == activation


@pytest.mark.parametrize(("operators", "columns", "labels", "output"), [
    (("Sigmoid",), 1, ("0", "1"), "probabilities"), (("Identity",), 1, ("0",), "logits"),
    (("Identity",), 3, ("0", "1", "2"), "logits"), (("Softmax",), 2, ("0", "1"), "probabilities"),
    (("Sigmoid",), 3, ("0", "1", "2"), "logits"), (("HardSigmoid", "Identity"), 1, ("0", "1"), "probabilities"),
])  # fmt: skip
def test_one_output_after_a_sigmoid_stands_for_two_classes(
    operators: tuple[str, ...], columns: int, labels: tuple[str, ...], output: str
) -> None:
    """One output without a Sigmoid may be a regression."""
    assert described(ending_in(*operators), columns) == (labels, output)


def test_the_softmax_of_one_value_is_refused() -> None:
    with pytest.raises(InputError, match="Softmax of one value, which is always 1; for two classes"):
        described(ending_in("Softmax"), 1)
