"""Convert ONNX files to half precision: float16 weights and arithmetic, float32 inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from export.parity import compare
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.errors import CompressError
from runtimes.evalset import EvalSet
from runtimes.files import write_bytes
from runtimes.lineage import Float16Record
from runtimes.measure import evaluate
from runtimes.target import Target

HALF_SCALES_OPSET = 19  # the first with float16 scales for QuantizeLinear
LARGEST, SMALLEST = 65504.0, 6e-8  # positive float16 values


def to_float16(artifact: Artifact, path: Path, images: EvalSet, target: Target) -> Artifact:
    """Write an ONNX artifact in half precision, with its manifest, to `path`.

    In an INT8 file, the float part becomes float16. images: for the comparison with `artifact` that the lineage
    records. Raises CompressError for weights outside float16's range.
    """
    half = half_precision(onnx.load(artifact.path))
    write_bytes(path, half.SerializeToString())
    derived = artifact.derive(
        path,
        precision="float16" if artifact.manifest.precision == "float32" else artifact.manifest.precision,
        opset=_opset(half),
        versions=environment.package_versions(),
    )
    parity = compare(evaluate(artifact, target, images), evaluate(derived, target, images))
    derived = derived.with_record(Float16Record(artifact.manifest.sha256, parity))
    derived.save_manifest()
    return derived


def half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that computes in float16; integers of Q/DQ pairs are unchanged, their scales become float16.

    Raises CompressError for a constant outside float16's range.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    _check_range(model)
    converted = onnx.version_converter.convert_version(model, max(HALF_SCALES_OPSET, _opset(model)))
    half: onnx.ModelProto = convert_float_to_float16(converted, keep_io_types=True, op_block_list=[])
    OnnxModel(half).topological_sort()  # the converter appends its casts
    onnx.checker.check_model(half, full_check=True)
    return half


def _check_range(model: onnx.ModelProto) -> None:
    scales = {node.input[1] for node in model.graph.node if node.op_type.endswith("QuantizeLinear")}
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = abs(numpy_helper.to_array(tensor))
        if values.size and values.max() > LARGEST:
            raise CompressError(f"{tensor.name} holds {values.max():.3g}, more than float16 can represent; use float32")
        if tensor.name in scales and values.min() < SMALLEST:
            raise CompressError(f"{tensor.name}, a quantization step, is {values.min():.3g}, too small for float16")


def _opset(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
