"""GroupNormalization of opset 18, which onnx rejects, becomes operators with the same outputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.rewrites.group_norms import write_group_norms

IMAGES = np.random.default_rng(0).normal(1, 2, (2, 12, 5, 6)).astype(np.float32)


def normalized(opset: int, values: int, in_function: bool) -> onnx.ModelProto:
    """Return a GroupNormalization of three groups. values: of its scale and bias."""
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], "norm", num_groups=3, epsilon=1e-3)
    imports = [helper.make_opsetid("", opset)]
    functions = []
    if in_function:
        functions = [helper.make_function("local", "Norm", ["x", "s", "b"], ["y"], [node], imports)]
        node = helper.make_node("Norm", ["x", "s", "b"], ["y"], domain="local")
    constants = [numpy_helper.from_array(np.linspace(low, 2, values, dtype=np.float32), name)
                 for name, low in (("s", 0.5), ("b", -1))]  # fmt: skip
    graph = helper.make_graph(
        [node], "norm", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12, 5, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 12, 5, 6])], constants,
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[*imports, helper.make_opsetid("local", 1)], functions=functions, ir_version=9
    )


def run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": IMAGES})[0])


@pytest.mark.parametrize("in_function", [False, True])
@pytest.mark.parametrize("opset", [18, 20])
def test_a_scale_for_each_group_is_kept(opset: int, in_function: bool) -> None:
    model = normalized(opset, 3, in_function)
    expected = run(model)
    with pytest.raises(onnx.checker.ValidationError, match="deprecated"):
        onnx.checker.check_model(model)
    write_group_norms(model)
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model), expected, rtol=1e-4, atol=1e-4)


def test_a_scale_for_each_channel_is_left_alone() -> None:
    model = normalized(21, 12, in_function=False)
    before = model.SerializeToString()
    write_group_norms(model)
    assert model.SerializeToString() == before
