"""Rewrite float32 graphs of other exporters to the form that this package expects; outputs do not change."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, inliner, numpy_helper, shape_inference, version_converter
from onnxruntime.capi import onnxruntime_pybind11_state as state

from export.rewrites.constants import fold_constant_norms, in_training_mode, write_constant_outputs
from export.rewrites.control_flow import decide_by_sizes, unroll
from export.rewrites.names import free_names
from export.rewrites.pool_pads import fold_pool_pads
from export.rewrites.resizes import write_all_axes
from runtimes.errors import InputError

REJECTIONS = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument, state.NotImplemented,
            state.NoModel, state.RuntimeException)  # fmt: skip
OLDEST_OPSET = 7  # that ONNX Runtime loads
MIN_OPSET = 13  # the first with a scale per channel in Q/DQ
MAX_PASSES = 5  # of folding; two or three suffice for all exporters tried
MIN_IR = 4  # the first in which constants need not be inputs
STANDARD = ("", "ai.onnx")
QUANTIZED_OPS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
PADDED_OPS = ("Conv", "MaxPool", "AveragePool")


class CannotLoadError(InputError):
    """ONNX Runtime rejects a model."""


def standard_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an image classifier with constants as initializers, BatchNorm folded, and a unique name for every node.

    ONNX Runtime's basic optimizations do the folding; they produce standard operators only. Raises InputError, with
    advice, if the model is not a float32 classifier. It takes (N, C, H, W), see `export.inputs`.
    """
    result = inlined(model)
    _write_default_axes(result)
    _keep_constants_out_of_inputs(result)
    declare_ranks(result)
    _name_nodes(result)  # ONNX Runtime rejects duplicate names
    fold_constant_norms(result)
    _require_plain_inference(result)
    if _opset(result) < OLDEST_OPSET:
        result = _with_min_opset(result)
    result = _with_min_opset(_folded(result))
    write_constant_outputs(result)
    _write_plain_gemms(result)
    use_global_average_pool(result)
    _write_explicit_pads(result)
    fold_pool_pads(result)
    write_all_axes(result, shapes_of(result))
    strip(result)
    _name_nodes(result)
    free_names(result)
    declare_ranks(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without local functions; those of another opset are converted."""
    opset = _opset(model)
    versions = {entry.version for function in model.functions for entry in function.opset_import
                if entry.domain in STANDARD}  # fmt: skip
    if versions <= {opset}:
        return inliner.inline_local_functions(model)
    try:
        return inliner.inline_local_functions(shape_inference.infer_shapes(model), convert_version=True)
    except (shape_inference.InferenceError, RuntimeError) as error:
        others = ", ".join(map(str, sorted(versions)))
        raise InputError(f"the model has opset {opset} and functions of opset {others}, which cannot be converted "
                         f"({_one_line(error)}); export all with one opset") from error  # fmt: skip


def _write_default_axes(model: onnx.ModelProto) -> None:
    """Give the axes of each MeanVarianceNormalization, without which onnx cannot infer its shape."""
    for node in model.graph.node:
        if node.op_type == "MeanVarianceNormalization" and not _has(node, "axes"):
            node.attribute.append(helper.make_attribute("axes", [0, 2, 3]))


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind those that they read; sorted graphs and graphs with a cycle stay as they are."""
    unknown = {name for node in graph.node for name in node.output}
    waiting, ordered = list(graph.node), list[NodeProto]()
    while waiting:
        later: list[NodeProto] = []
        for node in waiting:
            if unknown.isdisjoint(node.input):
                ordered.append(node)
                unknown.difference_update(node.output)
            else:
                later.append(node)
        if len(later) in (0, len(waiting)):
            break
        waiting = later
    if len(ordered) == len(graph.node) and len(waiting) < len(ordered):
        copies = [_copy(node) for node in ordered]
        del graph.node[:]
        graph.node.extend(copies)


def open_sizes(graph: onnx.GraphProto) -> None:
    """Leave sizes open that are declared as -1 or 0, as older converters of Paddle and MXNet do, and the four of images
    whose shape is not declared.
    """
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        tensor = value.type.tensor_type
        if value.name not in constants and value.type.HasField("tensor_type") and not tensor.HasField("shape"):
            tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(4))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.HasField("dim_value") and size.dim_value < 1:
                size.ClearField("dim_value")


def _keep_constants_out_of_inputs(model: onnx.ModelProto) -> None:
    """Remove constants from the inputs: as inputs they could change at run time, which prevents folding."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, MIN_IR)


def declare_ranks(model: onnx.ModelProto) -> None:
    """Declare the inferred shapes of outputs whose declared shape is missing or wrong, as exporters write them.

    Outputs must declare a shape; one without dimensions stays where nothing can be inferred.
    """
    declared = [_copy_value(value) for value in model.graph.output]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(model).graph.output
    except shape_inference.InferenceError:  # the checks that follow say what is wrong with the model
        inferred = declared
    for value, *kinds in zip(model.graph.output, declared, inferred, strict=True):
        known, found = (kind.type.tensor_type.shape for kind in kinds)
        is_wrong = not known.dim or (found.dim and not _may_be_alike(known, found))
        value.type.tensor_type.shape.CopyFrom(found if is_wrong else known)


def _may_be_alike(first: onnx.TensorShapeProto, second: onnx.TensorShapeProto) -> bool:
    """Return whether no size differs that both shapes give."""
    pairs = [{size.dim_value for size in pair} - {0} for pair in zip(first.dim, second.dim, strict=False)]
    return len(first.dim) == len(second.dim) and all(len(sizes) < 2 for sizes in pairs)


def _require_plain_inference(model: onnx.ModelProto) -> None:
    nodes = model.graph.node
    if any(node.op_type in QUANTIZED_OPS or node.op_type.startswith("QLinear") for node in nodes):
        raise InputError("the model is already quantized; give the float32 model")
    domains = {node.domain for node in nodes} - set(STANDARD)
    if domains:
        raise InputError(f"the model has operators of {', '.join(sorted(domains))}; export it without runtime-specific "
                         "optimizations, with operators of ai.onnx only")  # fmt: skip
    for node in nodes:
        if in_training_mode(node):
            raise InputError(f"the model was exported in training mode ('{node.name}' takes its statistics from the "
                             "batch); export it in evaluation mode, in torch after model.eval()")  # fmt: skip


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold until nothing changes: a pass expands operators that are functions, which the next pass can fold."""
    for _ in range(MAX_PASSES):
        before = len(model.graph.node)
        model = _fold_once(model)
        changed = [decide_by_sizes(model), unroll(model)]
        if not any(changed) and len(model.graph.node) == before:
            break
    controlled = sorted({node.op_type for node in model.graph.node
                         if any(attribute.HasField("g") for attribute in node.attribute)})  # fmt: skip
    if controlled:
        raise InputError(f"the model has control flow ({', '.join(controlled)}) that depends on the images or has many "
                         "steps; export it without, in torch by tracing it with a fixed input size")  # fmt: skip
    return model


def _fold_once(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph after ONNX Runtime's basic optimizations."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except REJECTIONS as error:
            raise CannotLoadError(
                f"ONNX Runtime {ort.__version__} cannot load the model: {_one_line(error)}"
            ) from error
        folded = onnx.load(options.optimized_model_filepath)
    kept = [entry for entry in folded.opset_import if entry.domain in STANDARD]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    return folded


def _opset(model: onnx.ModelProto) -> int:
    return next((int(entry.version) for entry in model.opset_import if entry.domain in STANDARD), MIN_OPSET)


def _with_min_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    version = _opset(model)
    if version >= MIN_OPSET:
        return model
    try:
        return _folded(version_converter.convert_version(model, MIN_OPSET))  # the converter adds constants as nodes
    except (version_converter.ConvertError, RuntimeError) as error:
        raise InputError(f"cannot convert the model's opset {version} to {MIN_OPSET} ({_one_line(error)}); "
                         f"export it with opset {MIN_OPSET} or newer") from error  # fmt: skip


def _write_plain_gemms(model: onnx.ModelProto) -> None:
    """Replace matrix products with constant weights by Gemm with alpha and beta 1."""
    constants, shapes = {tensor.name: tensor for tensor in model.graph.initializer}, shapes_of(model)
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or len(weight.dims) != 2 or weight.data_type != TensorProto.FLOAT:
            continue
        if node.op_type == "MatMul" and len(shapes.get(node.input[0], ())) == 2:
            node.op_type = "Gemm"
        elif node.op_type == "Gemm":
            for index, name in ((1, "alpha"), (2, "beta")):
                _fold_factor(model, constants, node, index, name)


def _fold_factor(
    model: onnx.ModelProto, constants: dict[str, TensorProto], node: NodeProto, index: int, name: str
) -> None:
    """Fold a Gemm's attribute alpha or beta into its constant; constants may be shared with other nodes."""
    factor = helper.get_node_attr_value(node, name) if _has(node, name) else 1.0
    if factor != 1 and len(node.input) > index and node.input[index]:
        if node.input[index] not in constants:
            return
        product = numpy_helper.to_array(constants[node.input[index]]) * np.float32(factor)
        node.input[index] = f"{node.output[0]}_{name}_{node.input[index]}"
        model.graph.initializer.append(numpy_helper.from_array(product, node.input[index]))
    _drop_attributes(node, name)


def use_global_average_pool(model: onnx.ModelProto) -> None:
    """Replace ReduceMean over height and width by GlobalAveragePool, which has integer kernels."""
    constants, shapes = {tensor.name: tensor for tensor in model.graph.initializer}, shapes_of(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if (
            node.op_type != "ReduceMean"
            or _reduced(node, constants) != [2, 3]
            or len(shapes.get(node.input[0], ())) != 4
        ):
            nodes.append(node)
            continue
        keep = not _has(node, "keepdims") or helper.get_node_attr_value(node, "keepdims")
        pooled = node.output[0] if keep else f"{node.output[0]}_pooled"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name))
        if not keep:
            name = f"{node.name}_flatten" if node.name else ""
            nodes.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=name))
    copies = [_copy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    _drop_unused_constants(model)


def _reduced(node: NodeProto, constants: dict[str, TensorProto]) -> list[int]:
    """Return the sorted axes of a ReduceMean of four dimensions; empty if they are not constant or not given."""
    axes: list[int] = []
    if _has(node, "axes"):
        axes = list(helper.get_node_attr_value(node, "axes"))
    elif len(node.input) > 1 and node.input[1] in constants:
        axes = [int(axis) for axis in numpy_helper.to_array(constants[node.input[1]]).ravel()]
    return sorted(axis % 4 for axis in axes)


def _write_explicit_pads(model: onnx.ModelProto) -> None:
    """Replace auto_pad of convolutions and pools by explicit pads."""
    weights, shapes = {tensor.name: tensor for tensor in model.graph.initializer}, shapes_of(model)
    for node in model.graph.node:
        if node.op_type not in PADDED_OPS or not _has(node, "auto_pad"):
            continue
        kind = helper.get_node_attr_value(node, "auto_pad").decode()
        if kind.startswith("SAME"):
            kernel = _sizes(node, "kernel_shape") or list(weights[node.input[1]].dims[2:])
            sides = list(shapes.get(node.input[0], ()))[2:] or [None] * len(kernel)
            pads = _same_pads(node, kernel, sides, kind == "SAME_UPPER")
            _drop_attributes(node, "pads", "ceil_mode")
            node.attribute.append(helper.make_attribute("pads", pads))
        _drop_attributes(node, "auto_pad")


def _same_pads(node: NodeProto, kernel: list[int], sides: list[int | None], more_at_end: bool) -> list[int]:
    strides = _sizes(node, "strides") or [1] * len(kernel)
    dilations = _sizes(node, "dilations") or [1] * len(kernel)
    begins, ends = [], []
    for size, side, stride, dilation in zip(kernel, sides, strides, dilations, strict=True):
        reach = (size - 1) * dilation + 1
        if stride == 1:
            total = reach - 1
        elif side is None:
            raise InputError(f"'{node.name or node.output[0]}' pads by the size of its input, which is unknown; "
                             "export the model with a fixed height and width")  # fmt: skip
        else:
            total = max((-(-side // stride) - 1) * stride + reach - side, 0)
        begins.append(total // 2 if more_at_end else total - total // 2)
        ends.append(total - begins[-1])
    return begins + ends


def _sizes(node: NodeProto, name: str) -> list[int]:
    return [int(size) for size in helper.get_node_attr_value(node, name)] if _has(node, name) else []


def strip(model: onnx.ModelProto) -> None:
    """Remove metadata of the exporting machine: every node carries stack traces with absolute paths."""
    del model.metadata_props[:]
    del model.functions[:]
    graph = model.graph
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    graph.doc_string = ""
    model.producer_name, model.producer_version, model.doc_string = "compress", "", ""


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a unique name."""
    original = {node.name for node in model.graph.node}
    used = {""}
    for index, node in enumerate(model.graph.node):
        name = node.name
        while name in used or (name != node.name and name in original):
            name = f"{name or node.op_type}_{index}"
        node.name = name
        used.add(name)


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """Return the inferred shapes by tensor name; None for dynamic sizes."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph  # so that computed shapes are known
    return {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)
            if value.type.tensor_type.HasField("shape")}  # fmt: skip


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    return [dimension.dim_value or None for dimension in value.type.tensor_type.shape.dim]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _has(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name for attribute in node.attribute)


def _drop_attributes(node: NodeProto, *names: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def _copy_value(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _drop_unused_constants(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
