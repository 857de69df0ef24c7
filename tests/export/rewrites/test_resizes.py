"""Every Resize gets the scales or sizes of all axes; its outputs do not change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_graphs import make_model, run_model

from export.rewrites.resizes import write_all_axes
from export.standard_form import shapes_of

IMAGES = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)


def resize(kind: str, axes: list[int], **attributes: object) -> onnx.ModelProto:
    value = np.asarray([1.5, 2], np.float32) if kind == "scales" else np.asarray([12, 5])
    inputs = ["x", "", "value"] if kind == "scales" else ["x", "", "", "value"]
    node = helper.make_node("Resize", inputs, ["y"], "resize", axes=axes, **attributes)
    return make_model([node], {"value": value})


@pytest.mark.parametrize(("kind", "axes"), [
    ("scales", [2, 3]), ("scales", [3, 2]), ("scales", [-1, 2]), ("sizes", [2, 3]), ("sizes", [-2, -1]),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_scales_and_sizes_of_all_axes_do_the_same(kind: str, axes: list[int], mode: str) -> None:
    model = resize(kind, axes, mode=mode, coordinate_transformation_mode="asymmetric")
    expected = run_model(model, IMAGES)
    write_all_axes(model, shapes_of(model))
    onnx.checker.check_model(model, full_check=True)
    assert not any(attribute.name == "axes" for attribute in model.graph.node[-1].attribute)
    np.testing.assert_allclose(run_model(model, IMAGES), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [
    resize("sizes", [1, 3]), resize("sizes", [2, 3], keep_aspect_ratio_policy="not_larger"),
])  # fmt: skip
def test_others_stay(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    write_all_axes(model, shapes_of(model))
    assert model.SerializeToString() == before
