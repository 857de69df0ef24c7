"""Small ONNX graphs made by hand, and what ONNX Runtime makes of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from export.plan import plan_quantization
from export.scheme import EXACT_KERNELS, Placement, Scheme, Sums
from export.subgraph import with_outputs
from export.to_onnx import INPUT_NAME, OUTPUT_NAME

Array = np.ndarray
OPERATORS = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat"})


def unsigned_scheme(sums: Sums = "exact", operators: frozenset[str] = OPERATORS) -> Scheme:
    """Return what ONNX Runtime wants on a CPU: uint8 around every operator, int32 biases."""
    return Scheme(sums, False, "every-operator", True, sums, operators)


def signed_scheme(placement: Placement = "layer-inputs") -> Scheme:
    """Return what TensorRT wants: int8 with zero points 0 in front of layers, float biases."""
    return Scheme("signed", True, placement, False, "exact")


def make_model(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], channels: int = 4, side: int = 8, output_rank: int = 4
) -> onnx.ModelProto:
    """Return a checked opset-18 model with the input `x` (N, channels, side, side)."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"] + [None] * (output_rank - 1))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def parsed(nodes: str, constants: str, tensors: Sequence[TensorProto] = ()) -> onnx.ModelProto:
    """Return the opset-17 graph of nodes in ONNX's text form, from x (N, 4, 6, 6) to y; each node has a name.

    constants: `<type name = {values}, …>`. tensors: more constants, of which the graph has those that it reads.
    """
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4, 6, 6] x) => (float y) {constants} {{ {nodes} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in (*model.graph.initializer, *tensors) if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    model.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    return model


def run_model(model: onnx.ModelProto, images: Array, exact: bool = False, wide_sums: bool = False) -> Array:
    """Run with ONNX Runtime; `exact` switches every fusion off, so that Q and DQ are computed as written.

    wide_sums: integer kernels sum in 32 bits whatever the processor, for schemes whose own processors do so.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in EXACT_KERNELS.items() if wide_sums else ():
        options.add_session_config_entry(key, value)
    if exact:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def optimized_ops(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Return the operators that ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def classifier(readers: int = 1) -> onnx.ModelProto:
    """Return a padded convolution, a pool and a classifier of 8 px; with two readers another pool reads the images."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", [INPUT_NAME, "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten", axis=1),
        helper.make_node("Gemm", ["f", "v"], ["g" if readers == 2 else OUTPUT_NAME], "gemm", transB=1),
    ]
    if readers == 2:
        nodes += [
            helper.make_node("GlobalAveragePool", [INPUT_NAME], ["q"], "other_pool"),
            helper.make_node("Flatten", ["q"], ["h"], "other_flatten", axis=1),
            helper.make_node("Add", ["g", "h"], [OUTPUT_NAME], "add"),
        ]
    constants = {"w": rng.normal(0, 1, (6, 3, 3, 3)), "b": rng.normal(0, 1, 6), "v": rng.normal(0, 1, (3, 6))}
    graph = helper.make_graph(
        nodes, "classifier",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def residual_model(channels: int = 4) -> onnx.ModelProto:
    """Conv-Relu, depthwise Conv-Clip(0, 6), Conv, Add with the first, pool, Flatten, Gemm."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Array:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    constants = {
        "w1": weights(8, channels, 3, 3), "b1": weights(8), "w2": weights(8, 1, 3, 3), "b2": weights(8),
        "w3": weights(8, 8, 1, 1), "b3": weights(8), "w4": weights(5, 8), "b4": weights(5),
        "zero": np.asarray(0, np.float32), "six": np.asarray(6, np.float32),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["a1"], name="relu"),
        node("Conv", ["a1", "w2", "b2"], ["c2"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        node("Clip", ["c2", "zero", "six"], ["a2"], name="clip"),
        node("Conv", ["a2", "w3", "b3"], ["c3"], name="pointwise"),
        node("Add", ["a1", "c3"], ["s"], name="add"),
        node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "w4", "b4"], ["y"], name="gemm", transB=1),
    ]
    return make_model(nodes, constants, channels, output_rank=2)


def binary_model(sigmoid: bool = True, images: Array | None = None) -> onnx.ModelProto:
    """Return the residual model with one output, above 0 for half of the images, and a Sigmoid after it."""
    model = residual_model(channels=3)
    if images is None:
        images = np.random.default_rng(1).normal(0, 1, (40, 3, 8, 8)).astype(np.float32)
    middle = np.median(run_model(model, images)[:, :1])
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)[:1] if tensor.name in ("w4", "b4") else None
        if values is not None:
            tensor.CopyFrom(numpy_helper.from_array(values - (middle if tensor.name == "b4" else 0), tensor.name))
    if sigmoid:
        model.graph.node[-1].output[0] = "z"
        model.graph.node.append(helper.make_node("Sigmoid", ["z"], ["y"], name="sigmoid"))
    return model


def tensor_values(model: onnx.ModelProto, name: str, images: Array) -> Array:
    """Return what a tensor inside the graph holds for the images."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(onnx.ValueInfoProto(name=name))
    return run_model(probe, images)


def all_values(model: onnx.ModelProto, images: Array) -> dict[str, Array]:
    """Return what every float tensor inside the graph holds for the images, and the images."""
    probe = with_outputs(model, [name for node in model.graph.node for name in node.output if name])
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    names, given = [value.name for value in session.get_outputs()], session.get_inputs()[0].name
    return {given: images, **dict(zip(names, session.run(names, {given: images}), strict=True))}


def ranges_of(model: onnx.ModelProto, images: Array, scheme: Scheme) -> dict[str, tuple[float, float]]:
    """Return the least and greatest value of each tensor whose range the scheme needs."""
    values = all_values(model, images)
    return {name: (float(values[name].min()), float(values[name].max()))
            for name in plan_quantization(model, scheme).ranged}  # fmt: skip


def constants_of(model: onnx.ModelProto) -> dict[str, Array]:
    """Return the model's constants by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def sqnr_db(expected: Array, answered: Array) -> float:
    """Return how loud the expected answer is over the difference, in dB; infinity where there is none."""
    noise = float(np.sum((expected - answered) ** 2))
    return float(10 * np.log10(np.sum(expected**2) / noise)) if noise else float("inf")
