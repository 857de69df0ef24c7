"""Half precision: float32 weights and arithmetic become float16, inputs and outputs stay float32."""

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

HALF_SCALES_OPSET = 19  # from which on QuantizeLinear takes float16 scales
LARGEST, SMALLEST = 65504.0, 6e-8  # that float16 holds


def to_float16(given: Artifact, path: Path, images: EvalSet, target: Target) -> Artifact:
    """Write the twin of an ONNX artifact that computes in float16 to `path`, and its manifest beside it.

    An INT8 file stays one. How far the twin's answers on images are from the given file's stands in the lineage. Raises
    CompressError for weights that float16 can't hold.
    """
    half = half_precision(onnx.load(given.path))
    write_bytes(path, half.SerializeToString())
    made = given.derive(
        path,
        precision="float16" if given.manifest.precision == "float32" else given.manifest.precision,
        opset=_opset(half),
        versions=environment.package_versions(),
    )
    parity = compare(evaluate(given, target, images), evaluate(made, target, images))
    made = made.with_record(Float16Record(given.manifest.sha256, parity))
    made.save_manifest()
    return made


def half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that computes in float16; what Q/DQ pairs hold stays as it is, scales become float16.

    Raises CompressError for a constant beyond float16's range.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    _check_range(model)
    given = onnx.version_converter.convert_version(model, max(HALF_SCALES_OPSET, _opset(model)))
    half: onnx.ModelProto = convert_float_to_float16(given, keep_io_types=True, op_block_list=[])
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
            raise CompressError(f"{tensor.name} holds {values.max():.3g}, more than float16 can; ship float32")
        if tensor.name in scales and values.min() < SMALLEST:
            raise CompressError(f"{tensor.name}, a quantization step, is {values.min():.3g}, too small for float16")


def _opset(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
