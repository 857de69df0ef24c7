"""Write the parts of hard activations that stay float as HardSigmoid: one float kernel in place of three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

Scaled = tuple[str, float]  # a tensor and the number that it is multiplied with


def with_hard_sigmoids(
    nodes: Sequence[NodeProto], constants: Mapping[str, TensorProto], outputs: Set[str]
) -> list[NodeProto]:
    """Return the nodes with HardSigmoid in place of Clip(alpha x + beta, 0, 1); named after its sum.

    outputs: tensors that have to stay, besides those that other nodes read.
    """
    readers: dict[str, int] = {}
    for name in [*(name for node in nodes for name in node.input), *outputs]:
        readers[name] = readers.get(name, 0) + 1
    producers = {name: node for node in nodes for name in node.output if readers.get(name) == 1}
    replaced: dict[str, NodeProto] = {}
    dropped: set[str] = set()
    for node in nodes:
        total = producers.get(node.input[0]) if _is_clip_to_one(node, constants) else None
        sum_of = _with_number(total, "Add", constants) if total is not None else None
        if total is None or sum_of is None:
            continue
        data, beta = sum_of
        product = producers.get(data)
        scaled = _with_number(product, "Mul", constants) if product is not None else None
        source, alpha = scaled or (data, 1.0)
        if alpha <= 0:
            continue
        dropped |= {total.output[0], *([data] if scaled else [])}
        replaced[node.output[0]] = helper.make_node(
            "HardSigmoid", [source], node.output, total.name, alpha=alpha, beta=beta
        )
    return [replaced.get(node.output[0], node) for node in nodes if node.output[0] not in dropped]


def _is_clip_to_one(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    return node.op_type == "Clip" and [_number(name, constants) for name in node.input[1:]] == [0.0, 1.0]


def _with_number(node: NodeProto, op: str, constants: Mapping[str, TensorProto]) -> Scaled | None:
    """Return the tensor and the number that a node adds or multiplies, None if it does not."""
    if node.op_type != op:
        return None
    first, second = (_number(name, constants) for name in node.input)
    if (first is None) == (second is None):
        return None
    return (node.input[0], second) if second is not None else (node.input[1], first or 0.0)


def _number(name: str, constants: Mapping[str, TensorProto]) -> float | None:
    tensor = constants.get(name)
    if tensor is None or tensor.data_type != TensorProto.FLOAT or list(tensor.dims):
        return None
    return float(np.asarray(numpy_helper.to_array(tensor)))
