"""Find what TensorRT rejects or silently misinterprets in a graph, before a build."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from runtimes.errors import InputError

OPSETS = range(9, 25)
QOPERATORS = ("QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def require_clean(model: onnx.ModelProto, what: str) -> None:
    """Raise InputError with the first problem of a graph and the number of others."""
    lines = list(problems(model))
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise InputError(f"{what}: not usable with TensorRT: {lines[0]}{more}")


def problems(model: onnx.ModelProto) -> Iterator[str]:
    """Yield one line for everything that TensorRT rejects or misinterprets."""
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if version not in OPSETS:
        yield f"opset {version} is outside {OPSETS[0]} to {OPSETS[-1]}; export with opset 18"
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if any(size.dim_value < 1 for size in list(sizes)[1:]):
            yield f"input {value.name} has a dynamic size besides the batch; export with a fixed height and width"
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for tensor in stored.values():
        if tensor.data_location == TensorProto.EXTERNAL:
            yield f"{tensor.name} is stored in another file; save the model as one file"
    for node in model.graph.node:
        if node.op_type.startswith(QOPERATORS):
            yield f"{node.op_type} {node.name} is not a Q/DQ pair; quantize for the scheme tensorrt"
        if node.op_type in QUANTIZERS:
            yield from _of_quantizer(node, stored)


def _of_quantizer(node: onnx.NodeProto, stored: dict[str, TensorProto]) -> Iterator[str]:
    advice = "quantize for the scheme tensorrt"
    value = stored.get(node.input[0])
    scale, zero_point = (stored.get(name) if name else None for name in [*node.input[1:3], "", ""][:2])
    kinds = [
        tensor.data_type for tensor in (value if node.op_type == "DequantizeLinear" else None, zero_point) if tensor
    ]
    if TensorProto.INT32 in kinds:
        yield f"{node.name} dequantizes int32, such as a bias, which must be float; {advice}"
    elif TensorProto.UINT8 in kinds or not kinds:  # without a zero point a quantizer produces uint8
        yield f"{node.name} is uint8, which TensorRT would silently read as int8; {advice}"
    elif any(kind != TensorProto.INT8 for kind in kinds):
        names = ", ".join(TensorProto.DataType.Name(kind).lower() for kind in kinds)
        yield f"{node.name} is {names}, not int8; {advice}"
    if zero_point is not None and numpy_helper.to_array(zero_point).any():
        yield f"{node.name} has a zero point other than 0; {advice}"
    if value is None and scale is not None and np.prod(scale.dims, dtype=int) > 1:
        yield f"{node.name} has a scale per channel on an activation; {advice}"
