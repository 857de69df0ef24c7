"""Write what ONNX Runtime accepts and onnx rejects in the usual form."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from export.inputs.as_float32 import all_graphs
from export.rewrites.group_norms import write_group_norms

DEFAULT_DOMAIN = "ai.onnx"  # the same as an empty name


def write_usual_spelling(model: onnx.ModelProto) -> None:
    """Rewrite a model as it was read, in place: domains, the graph's name, sparse constants, GroupNormalization."""
    model.graph.name = model.graph.name or "graph"
    nodes = [node for graph in all_graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    imports = [*model.opset_import, *(entry for function in model.functions for entry in function.opset_import)]
    for part in (*nodes, *imports):
        if part.domain == DEFAULT_DOMAIN:
            part.domain = ""
    for graph in all_graphs(model.graph):
        graph.initializer.extend(map(_dense, graph.sparse_initializer))
        del graph.sparse_initializer[:]
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                attribute.t.CopyFrom(_dense(attribute.sparse_tensor))
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    write_group_norms(model)


def _dense(sparse: onnx.SparseTensorProto) -> TensorProto:
    """Return a sparse constant as one with all elements."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)] = values
    return numpy_helper.from_array(dense.reshape(shape), sparse.values.name)
