"""The meaning of outputs follows from their shapes, their values and the last activation."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import helper

from export.head import (
    Head,
    compared_tensors,
    described,
    last_activation,
    require_rows,
    unchanging_outputs,
    unchanging_text,
)
from runtimes.errors import InputError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


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
@pytest.mark.parametrize("more", [(), (1, 1)])
def test_one_output_after_a_sigmoid_stands_for_two_classes(
    operators: tuple[str, ...], columns: int, labels: tuple[str, ...], output: str, more: tuple[int, ...]
) -> None:
    """One output without a Sigmoid may be a regression."""
    head = described(ending_in(*operators), (noise(2, columns, *more),), (64, 64))
    assert (head.kind, head.labels, head.output) == ("binary" if columns == 1 else "classes", labels, output)


def test_a_value_for_each_image_may_have_no_axis() -> None:
    assert described(ending_in("Sigmoid"), (noise(2),), (64, 64)).kind == "binary"


def test_the_softmax_of_one_value_is_refused() -> None:
    with pytest.raises(InputError, match="Softmax of one value, which is always 1; for two classes"):
        described(ending_in("Softmax"), (noise(2, 1),), (64, 64))


def boxes(count: int) -> np.ndarray:
    """Return boxes as centre and size."""
    return np.random.default_rng(1).uniform(1, 50, (2, count, 4)).astype(np.float32)


@pytest.mark.parametrize(("operator", "shapes", "kind"), [
    ("Identity", [(21, 64, 64)], "segmentation"), ("Sigmoid", [(1, 16, 16)], "segmentation"),
    ("Softmax", [(32, 32, 5)], "segmentation"), ("Identity", [(21, 64, 64), (21, 64, 64)], "segmentation"),
    ("Identity", [(1, 64, 64)], "other"), ("Identity", [(3, 128, 128)], "other"),
    ("Identity", [(512, 8, 8)], "other"), ("Identity", [(17, 32)], "other"),
])  # fmt: skip
def test_maps_of_classes_are_segmentations(operator: str, shapes: list[tuple[int, ...]], kind: str) -> None:
    """Depth, larger images, features and sequences are not."""
    outputs = tuple(noise(2, *shape) for shape in shapes)
    assert described(ending_in(operator), outputs, (64, 64)).kind == kind


def test_integer_maps_are_segmentations() -> None:
    assert described(ending_in("Identity"), (np.zeros((2, 64, 48), np.int64),), (64, 48)).kind == "segmentation"


def test_boxes_with_scores_are_detections() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, (2, 90, 3)).astype(np.float32)
    yolo = np.concatenate([boxes(90), scores], axis=2).transpose(0, 2, 1)
    for outputs in ((boxes(90), scores), (scores, boxes(90)), (yolo,)):
        assert described(ending_in("Identity"), outputs, (64, 64)).kind == "detections"
    assert described(ending_in("Identity"), (boxes(90), noise(2, 80, 3)), (64, 64)).kind == "other"


def test_vectors_of_length_one_or_with_a_name_are_embeddings() -> None:
    vectors = noise(2, 32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    model = ending_in("Identity")
    assert described(model, (unit,), (64, 64)).kind == "embedding"
    assert described(model, (vectors,), (64, 64)).kind == "classes"
    model.graph.output[0].name = model.graph.node[-1].output[0] = "image_embeds"
    assert described(model, (vectors,), (64, 64)).kind == "embedding"


def test_outputs_need_a_row_for_each_image_unless_they_are_boxes() -> None:
    with pytest.raises(
        InputError, match=r"returns \(7, 3\) for 2 images: the first axis .* must be the batch; .*with batch 1"
    ):
        require_rows(ending_in("Relu"), Head("other"), (noise(7, 3),), 2)
    require_rows(ending_in("Relu"), Head("detections"), (noise(7, 6),), 2)


def with_anchors(*names: str, first: bool = False) -> onnx.ModelProto:
    """Return a classifier with outputs that do not depend on its images, of which the last one reads their size."""
    model = ending_in("Relu")
    for name in names:
        read = "x" if name == names[-1] else "anchors_constant"
        model.graph.node.append(helper.make_node("Shape" if read == "x" else "Identity", [read], [name]))
        model.graph.output.insert(0 if first else len(model.graph.output), helper.make_empty_tensor_value_info(name))
    model.graph.initializer.append(helper.make_tensor("anchors_constant", 1, [2], [0.1, 0.2]))
    return model


def test_outputs_that_do_not_depend_on_the_images_need_no_rows_and_are_not_compared() -> None:
    model = with_anchors("anchors", "sizes")
    outputs = (noise(2, 3), noise(7, 4), noise(4))
    assert unchanging_outputs(model) == ("anchors", "sizes")
    assert unchanging_text(unchanging_outputs(model)).startswith("the outputs 'anchors', 'sizes' do not depend on the ")
    assert compared_tensors(model) == ("y",)
    head = described(model, outputs, (64, 64))
    assert head.kind == "classes"
    require_rows(model, head, outputs, 2)
    first = with_anchors("anchors", first=True)
    assert described(first, (noise(4), noise(2, 3)), (64, 64)).kind == "other"  # classes are read from the first output


def test_a_model_without_an_output_that_depends_on_the_images_is_refused() -> None:
    model = with_anchors("anchors")
    del model.graph.output[0]
    with pytest.raises(InputError, match=r"no output of the model depends on the images .*'anchors' is a constant"):
        described(model, (noise(4),), (64, 64))


@pytest.mark.parametrize(("operators", "compared"), [
    (("ArgMax",), "0"), (("ArgMax", "Cast"), "0"), (("Softmax", "ArgMax", "Squeeze"), "1"), (("TopK", "Identity"), "0"),
    (("ArgMax", "Relu"), "y"), (("Softmax",), "y"),
])  # fmt: skip
def test_the_values_behind_the_largest_one_are_compared(operators: tuple[str, ...], compared: str) -> None:
    """Where two values are nearly equal, any rounding changes which one is the largest."""
    assert compared_tensors(ending_in(*operators)) == (compared,)


def test_the_values_before_a_comparison_are_compared() -> None:
    model = ending_in("Sigmoid", "Greater")
    model.graph.initializer.append(helper.make_tensor("threshold", 1, [], [0.5]))
    model.graph.node[-1].input.append("threshold")
    assert compared_tensors(model) == ("1",)


def test_names_of_the_largest_value_are_judged_by_the_values() -> None:
    model = ending_in("ArgMax", "Gather")
    model.graph.initializer.append(helper.make_tensor("names", onnx.TensorProto.STRING, [2], [b"cat", b"dog"]))
    model.graph.node[-1].input[:] = ["names", "1"]
    assert compared_tensors(model) == ("0",)


def test_the_largest_values_are_no_classes() -> None:
    assert described(ending_in("TopK"), (noise(2, 3), np.zeros((2, 3), np.int64)), (64, 64)).kind == "other"


def test_boxes_and_scores_before_suppression_are_compared() -> None:
    suppression = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["chosen"])
    nodes = [suppression, helper.make_node("Gather", ["boxes", "chosen"], ["found"])]
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in ("found", "y")]
    inputs = [helper.make_tensor_value_info(name, 1, None) for name in ("boxes", "scores", "y")]
    model = helper.make_model(helper.make_graph(nodes, "detector", inputs, outputs))
    assert compared_tensors(model) == ("boxes", "scores", "y")
