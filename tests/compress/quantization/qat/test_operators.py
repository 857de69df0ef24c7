"""Tests of operators in PyTorch, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.quantization.qat.operators import OPERATORS, compute
from runtimes.errors import InputError

Array = np.ndarray
RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (2, 8, 7, 6)).astype(np.float32)
POSITIVE = np.abs(X) + 0.1
SAME = [name for name in OPERATORS if name in {
    "Relu", "HardSwish", "HardSigmoid", "Sigmoid", "LeakyRelu", "Elu", "Selu", "Gelu", "Mish", "Softplus", "Softsign",
    "Tanh", "Erf", "Exp", "Abs", "Neg", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Celu", "Identity",
    "GlobalAveragePool", "GlobalMaxPool",
}]  # fmt: skip


def ints(*values: int) -> Array:
    return np.asarray(values, np.int64)


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


Case = tuple[str, list[Array | None], dict[str, Any]]
CASES: list[Case] = [
    *((name, [X], {}) for name in SAME),
    *((name, [POSITIVE], {}) for name in ("Log", "Sqrt", "Reciprocal")),
    *((name, [X, floats(8, 1, 1)], {}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "Less")),
    *((name, [X, X.round()], {}) for name in ("GreaterOrEqual", "LessOrEqual")),
    *((name, [X > 0, X < 1], {}) for name in ("And", "Or")),
    ("ThresholdedRelu", [X], {"alpha": 0.5}),
    ("Einsum", [X, floats(2, 8, 5)], {"equation": "bchw,bcd->bdhw"}),
    ("CumSum", [X, np.asarray(2, np.int32)], {}),
    ("GatherElements", [X, np.zeros((2, 8, 7, 1), np.int64)], {"axis": 3}),
    *((name, [X], {"axes": None, "keepdims": 0}) for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")),
    *((name, [X, ints(1, 3)], {}) for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")),
    *((name, [X, ints(1, 3)], {}) for name in ("ReduceL1", "ReduceL2")),
    ("Div", [ints(7, 9, 4), ints(2, 2, 2)], {}),
    ("Mod", [ints(7, 9, 4), ints(2, 4, 3)], {}),
    ("Pow", [POSITIVE, np.float32(1.5).reshape(())], {}),
    ("Sum", [X, X, X], {}),
    ("Equal", [ints(1, 2), ints(1, 3)], {}),
    ("Where", [X > 0, X, -X], {}),
    ("Not", [X > 0], {}),
    ("Cast", [X], {"to": TensorProto.INT64}),
    ("Clip", [X, np.float32(-1).reshape(()), np.float32(1).reshape(())], {}),
    ("Clip", [X, None, np.float32(1).reshape(())], {}),
    ("Clip", [X], {}),
    ("PRelu", [X, floats(8, 1, 1)], {}),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("MatMul", [floats(2, 3, 5), floats(2, 5, 4)], {}),
    ("Gemm", [floats(3, 5), floats(4, 5), floats(4)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Conv", [X, floats(6, 4, 3, 3), floats(6)], {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", [X[..., 0], floats(4, 8, 3)], {"pads": [1, 1], "dilations": [2]}),
    ("BatchNormalization", [X, floats(8), floats(8), floats(8), np.abs(floats(8)) + 0.1], {"epsilon": 1e-3}),
    ("LayerNormalization", [X, floats(6), floats(6)], {"axis": -1}),
    ("InstanceNormalization", [X, floats(8), floats(8)], {}),
    ("Softmax", [X], {"axis": 1}),
    ("LogSoftmax", [X], {"axis": -1}),
    ("MaxPool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [X], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [X], {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
    ("Resize", [X, None, np.asarray([1, 1, 2, 2], np.float32)], {"mode": "nearest", "nearest_mode": "floor",
                                                                "coordinate_transformation_mode": "asymmetric"}),
    ("Resize", [X, None, None, ints(2, 8, 9, 5)], {"mode": "linear"}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 0), np.float32(2).reshape(())], {}),
    ("Pad", [X, ints(1, 2, 3, 0), None, ints(2, 3)], {"mode": "edge"}),
    ("Pad", [X, ints(1, 1, 2, 1), None, ints(2, 3)], {"mode": "reflect"}),
    ("Concat", [X, X], {"axis": 1}),
    ("Split", [X, ints(3, 5)], {"axis": 1}),
    ("Split", [X], {"axis": 2, "num_outputs": 2}),
    ("Slice", [X, ints(1, -2), ints(99, -9), ints(1, 3), ints(2, -1)], {}),
    ("Gather", [X, ints(3, -1)], {"axis": 1}),
    ("Gather", [X, np.asarray(2)], {"axis": -1}),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    ("Reshape", [X, ints(0, -1, 6)], {}),
    ("Flatten", [X], {"axis": 2}),
    ("Squeeze", [X[:1]], {}),
    ("Squeeze", [X[:1, :1], ints(1)], {}),
    ("Unsqueeze", [X, ints(0, -1)], {}),
    ("Expand", [X[:, :1], ints(8, 1, 1)], {}),
    ("Tile", [X, ints(1, 2, 1, 1)], {}),
    ("DepthToSpace", [X], {"blocksize": 2}),
    ("DepthToSpace", [X], {"blocksize": 2, "mode": "CRD"}),
    ("Shape", [X], {"start": 1}),
    ("Range", [np.asarray(1), np.asarray(9), np.asarray(3)], {}),
    ("ConstantOfShape", [ints(2, 3)], {"value": numpy_helper.from_array(np.asarray([7], np.int64))}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_outputs_are_those_of_onnx_runtime(case: Case) -> None:
    name, values, attributes = case
    attributes = {key: value for key, value in attributes.items() if value is not None}
    names = ["" if value is None else f"x{index}" for index, value in enumerate(values)]
    outputs = ["y0", "y1"] if name == "Split" else ["y0"]
    node = helper.make_node(name, names, outputs, name="node", **attributes)
    present = {key: np.asarray(value) for key, value in zip(names, values, strict=True) if value is not None}
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
         for key, value in present.items()],
        [helper.make_empty_tensor_value_info(output) for output in outputs],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    expected = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, present
    )
    computed = compute(node, [None if value is None else torch.from_numpy(np.asarray(value)) for value in values])
    assert len(computed) == len(expected)
    for tensor, array in zip(computed, expected, strict=True):
        assert tuple(tensor.shape) == array.shape
        np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-4, atol=1e-5)


def test_every_operator_of_one_input_with_shared_sizes_is_in_the_cases() -> None:
    tested = {name for name, _, _ in CASES}
    assert set(OPERATORS) - tested == {
        "Dropout",
        "GroupNormalization",
        "Swish",
    }  # ONNX Runtime has them under conditions


def test_an_unknown_operator_is_an_error_with_its_name() -> None:
    with pytest.raises(InputError, match=r"the operator Unique \('node'\) is not supported"):
        compute(helper.make_node("Unique", ["x"], ["y"], name="node"), [torch.zeros(1)])
