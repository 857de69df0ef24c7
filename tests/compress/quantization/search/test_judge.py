"""Judges compare outputs of every kind with those of float32."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import TensorProto, helper
from searches import images, search, wide_model

from compress.quantization.search.judge import MAX_BYTES, Judge
from runtimes.errors import InputError
from runtimes.outputs.kinds import OutputKind


def with_second_output() -> onnx.ModelProto:
    """Return a network with its features, whose unit is much larger, as the second output."""
    model = wide_model()
    model.graph.node.append(helper.make_node("Mul", ["f", "thousand"], ["features"], name="enlarge"))
    model.graph.initializer.append(helper.make_tensor("thousand", TensorProto.FLOAT, [], [1000]))
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 8]))
    return model


def test_all_outputs_are_judged_in_their_own_unit() -> None:
    model, photos = with_second_output(), images(6)
    judge = Judge.of(model, photos)
    rows = judge.rows(model, photos)
    assert rows.shape == (6, 13)
    first, second = rows.copy(), rows.copy()
    first[:, :5] *= 1.01
    second[:, 5:] *= 1.01
    for changed in (first, second):
        assert judge.sqnr_db(rows, changed) == pytest.approx(40, abs=0.1)
    assert judge.noise(rows, first).mean() == pytest.approx(judge.noise(rows, second).mean(), rel=0.01)
    assert judge.agreement(rows, np.concatenate([rows[:, :5], -rows[:, 5:]], axis=1)) == 1


def test_layers_of_a_second_output_are_rounded_too() -> None:
    best, finished = search(with_second_output())
    assert best.answers.shape == (13, 13)
    assert [attempt.step for attempt in finished.attempts if attempt.kept][-1].startswith("error feedback")
    assert best.sqnr_db > 30


def segmentation() -> onnx.ModelProto:
    model = wide_model()
    del model.graph.node[4:]
    model.graph.node[-1].output[0] = "y"
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, 8, 8]))
    return model


def test_pixels_of_segmentations_are_compared() -> None:
    model, photos = segmentation(), images(3)
    judge = Judge.of(model, photos, "segmentation")
    rows = judge.rows(model, photos)
    assert rows.shape == (3, 512)
    changed = rows.reshape(3, 8, 64).copy()
    changed[:, :, :16] = changed[:, ::-1, :16] - 1
    changed[:, 0, :16] = 1e6
    share = judge.agreement(rows, changed.reshape(3, -1))
    labels = rows.reshape(3, 8, 64).argmax(1)
    assert share == pytest.approx(0.75 + 0.25 * np.mean(labels[:, :16] == 0))


@pytest.mark.parametrize("kind", ["embedding", "other"])
def test_kinds_without_agreement_have_only_noise(kind: OutputKind) -> None:
    judge = Judge.of(wide_model(), images(2), kind)
    rows = judge.rows(wide_model(), images(2))
    assert judge.agreement(rows, rows) is None
    assert judge.sqnr_db(rows, rows) > 100


def test_fewer_images_are_judged_if_outputs_are_large() -> None:
    judge = Judge("segmentation", ("y",), ((21, 512, 512),), (np.float32,), None)
    assert judge.most_images == MAX_BYTES // (4 * math.prod(judge.shapes[0]))
    assert Judge("other", ("y",), ((10**9,),), (np.float32,), None).most_images == 1


def test_outputs_without_a_row_for_each_image_are_judged_image_by_image() -> None:
    model = onnx_graphs.residual_model(channels=3)
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("Transpose", ["rows"], ["y"], name="by_class"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    judge = Judge.of(model, images(3), "other")
    assert (judge.single, judge.shapes) == (True, ((5, 1),))
    assert judge.rows(model, images(3)).shape == (3, 5)


def test_outputs_whose_size_depends_on_the_image_are_refused() -> None:
    model = onnx_graphs.residual_model(channels=3)
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("NonZero", ["bright"], ["y"], name="positions"))
    model.graph.node.insert(0, helper.make_node("Greater", ["x", "level"], ["bright"], name="threshold"))
    model.graph.initializer.append(helper.make_tensor("level", TensorProto.FLOAT, [], [0.5]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, None))
    with pytest.raises(InputError, match=r"'y' is \(4, \d+\) for one image and \(4, \d+\) for another"):
        Judge.of(model, images(3))
