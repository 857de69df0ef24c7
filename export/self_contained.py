"""Put normalisation and softmax into a graph, which then maps pixels to probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.parity import compare, require_same
from export.to_onnx import INPUT_NAME, OUTPUT_NAME
from runtimes.artifact import Artifact, InputDtype, Output
from runtimes.evalset import EvalSet
from runtimes.files import write_bytes
from runtimes.lineage import SelfContainedRecord
from runtimes.measure import evaluate
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

PIXELS_NAME, PROBABILITIES_NAME = "pixels", "probabilities"
Float32 = npt.NDArray[np.float32]


def self_contained(
    artifact: Artifact, path: Path, takes: InputDtype, gives: Output, images: EvalSet, target: Target
) -> Artifact:
    """Write an ONNX artifact with normalisation (`takes` uint8) and softmax (`gives` probabilities) in the graph.

    images: for the parity with the original file, which is in the lineage. Raises CompressError where the outputs of a
    float32 file change by more than rounding.
    """
    model, changes = onnx.load(artifact.path), dict[str, Any]()
    if takes == "uint8":
        model = take_pixels(model, artifact.manifest.preprocessing)
        changes |= {"input_name": PIXELS_NAME, "input_dtype": "uint8", "input_layout": "NHWC"}
    if gives == "probabilities":
        model = give_probabilities(model)
        changes |= {"output_name": PROBABILITIES_NAME, "output": "probabilities"}
    write_bytes(path, model.SerializeToString())
    derived = artifact.derive(path, **changes)
    before, after = (_log_softmax(evaluate(each, target, images)) for each in (artifact, derived))
    is_float32 = artifact.manifest.precision == "float32"
    parity = require_same(before, after, path.name) if is_float32 else compare(before, after)
    derived = derived.with_record(SelfContainedRecord(parity))
    derived.save_manifest()
    return derived


def take_pixels(model: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Return a copy whose input is uint8 (N, H, W, C) instead of normalised float32 (N, C, H, W).

    The mean is subtracted first, so that padding with zeros stays correct. The division by std is folded into the
    weights of the first convolution or, for a quantized input and equal std of all channels, into the input's scale.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    scale, _ = preprocessing.scale_and_offset
    mean = (255 * np.asarray(preprocessing.mean, np.float64)).astype(np.float32).reshape(1, -1, 1, 1)
    graph.initializer.append(numpy_helper.from_array(mean, "pixel_mean"))
    folded = _fold(graph, scale)
    centred = INPUT_NAME if folded else "centred"
    nodes = [
        helper.make_node("Cast", [PIXELS_NAME], ["pixels_float"], "cast_pixels", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels_float"], ["pixels_nchw"], "transpose_pixels", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["pixels_nchw", "pixel_mean"], [centred], "subtract_mean"),
    ]
    if not folded:
        graph.initializer.append(numpy_helper.from_array(scale.reshape(1, -1, 1, 1), "pixel_scale"))
        nodes.append(helper.make_node("Mul", [centred, "pixel_scale"], [INPUT_NAME], "divide_by_std"))
    _prepend(graph, nodes)
    (tensor,) = graph.input
    batch, _, height, width = [size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim]
    shape = [batch, height, width, preprocessing.channel_count]
    tensor.CopyFrom(helper.make_tensor_value_info(PIXELS_NAME, TensorProto.UINT8, shape))
    onnx.checker.check_model(copy, full_check=True)
    return copy


def give_probabilities(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose output is the softmax of the logits, float32 (N, classes)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.node.append(helper.make_node("Softmax", [OUTPUT_NAME], [PROBABILITIES_NAME], "softmax", axis=1))
    copy.graph.output[0].name = PROBABILITIES_NAME
    onnx.checker.check_model(copy, full_check=True)
    return copy


def _log_softmax(logits: Float32) -> Float32:
    """Return log-probabilities, which a constant added to the logits does not change."""
    shifted = logits - logits.max(1, keepdims=True)
    normed: Float32 = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return normed


def _fold(graph: onnx.GraphProto, scale: Float32) -> bool:
    """Fold the scale of each channel into the first node; return whether that is possible."""
    readers = [node for node in graph.node if INPUT_NAME in node.input]
    if len(readers) != 1:
        return False
    (first,) = readers
    if first.op_type == "Conv" and not any(
        attribute.name == "group" and attribute.i > 1 for attribute in first.attribute
    ):
        return _multiply(graph, first, 1, scale.reshape(1, -1, 1, 1))
    if first.op_type == "QuantizeLinear" and len(set(scale.tolist())) == 1:
        pixels_per_unit = (1 / scale[:1].astype(np.float64)).astype(np.float32).reshape(())
        return _multiply(graph, first, 1, pixels_per_unit)  # the DequantizeLinear after it keeps its scale
    return False


def _multiply(graph: onnx.GraphProto, node: onnx.NodeProto, position: int, factor: Float32) -> bool:
    """Replace a node's constant by a new constant, its product with a factor; other nodes may read the old one."""
    constant = next((tensor for tensor in graph.initializer if tensor.name == node.input[position]), None)
    if constant is None:
        return False
    product = (numpy_helper.to_array(constant).astype(np.float64) * factor).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(product, f"{constant.name}_of_pixels"))
    node.input[position] = f"{constant.name}_of_pixels"
    if not any(constant.name in other.input for other in graph.node):
        graph.initializer.remove(constant)
    return True


def _prepend(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
