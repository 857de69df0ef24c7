"""Fold sums and products with constants, and BatchNormalization, after a Conv or Gemm into its weights and bias."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from export.layers import bias_of, is_layer
from export.rewrites.editing import EditedGraph

Float64 = npt.NDArray[np.float64]


@dataclass
class _Affine:
    """Chain of nodes after a layer that computes factor * y + offset of its output y; both are (O,)."""

    factor: Float64
    offset: Float64
    output: str
    nodes: list[str] = field(default_factory=list)


def fold_affine(graph: EditedGraph) -> None:
    """Fold them, in place; the layer then writes the last tensor of the chain."""
    readers = graph.readers()
    folded: set[str] = set()
    for node in graph.nodes:
        if not is_layer(node, graph.constants):
            continue
        bias = bias_of(node, graph.constants)
        assert bias is not None
        affine = _affine_after(graph, readers, node, len(bias))
        if affine.nodes:
            _fold(graph, node, bias, affine)
            folded.update(affine.nodes)
    graph.nodes = [node for node in graph.nodes if node.name not in folded]


def _affine_after(graph: EditedGraph, readers: dict[str, list[NodeProto]], layer: NodeProto, outputs: int) -> _Affine:
    affine = _Affine(np.ones(outputs), np.zeros(outputs), layer.output[0])
    while affine.output not in graph.outputs and len(readers[affine.output]) == 1:
        node = readers[affine.output][0]
        step = _step(graph, node, outputs, layer.op_type)
        if step is None:
            break
        factor, offset = step
        affine.factor, affine.offset = affine.factor * factor, affine.offset * factor + offset
        affine.output = node.output[0]
        affine.nodes.append(node.name)
    return affine


def _step(graph: EditedGraph, node: NodeProto, outputs: int, op: str) -> tuple[Float64, Float64] | None:
    """Return (factor, offset), each (O,), of a sum or product with a constant, or of a BatchNormalization."""
    if node.op_type == "BatchNormalization":
        return _normalization(graph, node)
    operand = graph.operand(node) if node.op_type in ("Add", "Mul") else None
    vector = _per_channel(operand[1], outputs, op) if operand is not None else None
    if vector is None:
        return None
    return (vector, np.zeros(outputs)) if node.op_type == "Mul" else (np.ones(outputs), vector)


def _normalization(graph: EditedGraph, node: NodeProto) -> tuple[Float64, Float64] | None:
    values = [graph.constant(name) for name in node.input[1:]]
    scale, bias, mean, variance = (None if value is None else value.astype(np.float64) for value in values)
    if scale is None or bias is None or mean is None or variance is None or len(node.output) > 1:
        return None
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    return factor, bias - mean * factor


def _per_channel(value: npt.NDArray[np.float32], outputs: int, op: str) -> Float64 | None:
    """Return a constant that is added to, or multiplied with, a layer's output as one value per channel (O,)."""
    after = 2 if op == "Conv" else 0  # axes after that of the channels
    if value.size == 1 and value.ndim <= 2 + after:
        return np.full(outputs, float(value.item()))
    channels = value.shape[value.ndim - 1 - after] if after < value.ndim <= 2 + after else None
    return value.astype(np.float64).ravel() if channels == value.size == outputs else None


def _fold(graph: EditedGraph, node: NodeProto, bias: Float64, affine: _Affine) -> None:
    weight = graph.constant(node.input[1])
    assert weight is not None
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    by_output = affine.factor if node.op_type == "Gemm" and not transposed else affine.factor.reshape(
        -1, *[1] * (weight.ndim - 1)
    )  # fmt: skip
    names = [graph.add(f"{node.name}_{part}_folded", value.astype(np.float32))
             for part, value in (("weight", weight * by_output),
                                 ("bias", bias * affine.factor + affine.offset))]  # fmt: skip
    del node.input[1:]
    node.input.extend(names)
    node.output[0] = affine.output
