"""Rename tensors whose names a quantized graph needs for its scales and integers."""

from __future__ import annotations

import re

import onnx

RESERVED = re.compile("^(.*)_(quantized|dequantized|scale|zero_point|float)$", re.DOTALL)  # see `export.quantize`


def free_names(model: onnx.ModelProto) -> None:
    """Rename the tensors and constants with such names, in place; inputs and outputs keep theirs.

    Where an output has such a name, the tensor that the quantized graph would name after is renamed.
    """
    graph = model.graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    inner = [name for node in graph.node for name in node.output if name] + [item.name for item in graph.initializer]
    stems = {match[1] for match in map(RESERVED.match, ends) if match}
    present, renamed = {*ends, *inner}, dict[str, str]()
    for name in inner:
        if name not in ends and (RESERVED.match(name) or name in stems):
            renamed[name] = f"{name}_"
            while renamed[name] in present:
                renamed[name] += "_"
            present.add(renamed[name])
    if renamed:
        for node in graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
        for tensor in graph.initializer:
            tensor.name = renamed.get(tensor.name, tensor.name)
