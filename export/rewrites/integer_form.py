"""Rewrite a float32 graph so that integer kernels can compute more of it."""

from __future__ import annotations

import onnx

from export.rewrites.affine import fold_affine
from export.rewrites.arithmetic import write_plain_arithmetic
from export.rewrites.editing import EditedGraph
from export.rewrites.hard_activations import rewrite_hard_activations
from export.rewrites.rows import write_rows


def integer_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a float32 graph with operators that have integer kernels; its outputs are the same."""
    graph = EditedGraph(model)
    write_plain_arithmetic(graph)
    write_rows(graph)
    fold_affine(graph)
    return rewrite_hard_activations(graph.finished())
