"""Small networks that take images in different types and layouts, and their outputs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphs
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray
Sizes = Sequence[int | str | None]


def network(channels: int = 3, sizes: Sizes = ("N", 3, 8, 8), batch: int | str = "N") -> onnx.ModelProto:
    """Return Conv, Relu, Conv, pool and Gemm from `x`; sizes: of the input."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["d"], "second", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "g"], ["y"], "gemm"),
    ]
    shapes = {"w": (8, channels, 3, 3), "b": (8,), "v": (8, 8, 3, 3), "g": (8, 5)}
    graph = helper.make_graph(
        nodes, "test", [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(sizes))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(rng.normal(0, 0.4, shape).astype(np.float32), name) for name, shape in shapes.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def behind(
    model: onnx.ModelProto, nodes: list[NodeProto], sizes: Sizes, constants: dict[str, Array] | None = None,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:  # fmt: skip
    """Put `nodes` between the input and the network; they read `x` and write `z`. sizes, kind: of the new input."""
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = "z" if name == "x" else name
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in (constants or {}).items())
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, list(sizes)))
    onnx.checker.check_model(model)
    return model


def channels_last(sizes: Sizes = ("N", 8, 8, 3)) -> onnx.ModelProto:
    """Return the network behind the Transpose of TensorFlow's converters."""
    return behind(network(), [helper.make_node("Transpose", ["x"], ["z"], perm=[0, 3, 1, 2])], sizes)


def takes_pixels(layout: str = "NHWC", batch: int | str = "N", moves_first: bool = False) -> onnx.ModelProto:
    """Return the network behind a Cast and its own normalisation. moves_first: uint8 pixels are transposed."""
    last = layout == "NHWC" and not moves_first
    shape = (3,) if last else (3, 1, 1)
    constants = {"mean": np.float32([120, 110, 100]).reshape(shape), "std": np.float32([60, 50, 40]).reshape(shape)}
    nodes = [
        *([helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])] if moves_first else []),
        helper.make_node("Cast", ["t" if moves_first else "x"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["a", "mean"], ["s"]),
        helper.make_node("Div", ["s", "std"], ["n" if last else "z"]),
        *([helper.make_node("Transpose", ["n"], ["z"], perm=[0, 3, 1, 2])] if last else []),
    ]
    sizes = [batch, 8, 8, 3] if layout == "NHWC" else [batch, 3, 8, 8]
    return behind(network(batch=batch), nodes, sizes, constants, TensorProto.UINT8)


def answers(model: onnx.ModelProto, images: Array) -> Array:
    """Return the outputs of a network for its own input."""
    return onnx_graphs.run_model(model, images)
