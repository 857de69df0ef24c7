"""Profile of an ONNX file in ONNX Runtime: the executed operators, their arithmetic and their time."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from export.plan import CLAMPING_OPS
from runtimes.artifact import Artifact
from runtimes.lineage import NodeKind, RuntimeNode
from runtimes.target import Target

CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose", "Cast"})
INTEGER = re.compile(r"^(QLinear|QGemm|QAttention|ConvInteger|MatMulInteger|DynamicQuantize)")
SUFFIXES = re.compile(r"(_kernel_time|_token_\d+|_nchwc|/duplicated)")
WARMUP = 5


def executed_operators(artifact: Artifact, target: Target, runs: int = 20) -> tuple[RuntimeNode, ...]:
    """Return the operators that ONNX Runtime executes for an ONNX artifact on the CPU, in order.

    The input is seeded noise; a node's time is its median over `runs` profiled runs.
    """
    times: dict[tuple[Any, Any, Any], list[float]] = {}
    for event in _profile(artifact, target, runs):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["args"]["node_index"], event["name"], event["args"]["op_name"]
            times.setdefault(node, []).append(event["dur"] / 1000)
    layers = _layer_names(onnx.load(artifact.path))
    nodes = []
    for (_, name, op), milliseconds in times.items():
        base = SUFFIXES.sub("", name)
        kind = _kind(op)
        layer = None if kind == "conversion" else layers.get(base)
        nodes.append(RuntimeNode(base, op, kind, layer, float(np.median(milliseconds[WARMUP:]))))
    return tuple(nodes)


def _profile(artifact: Artifact, target: Target, runs: int) -> list[dict[str, Any]]:
    """Return the events of ONNX Runtime's profiler for warm-up and profiled runs."""
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = target.threads, 1
        options.log_severity_level = 4
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        for key, value in artifact.manifest.session_options.items():
            options.add_session_config_entry(key, value)
        session = ort.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
        _, *rest = artifact.manifest.input_shape
        noise = np.random.default_rng(0).normal(size=(target.batch, *rest)).astype(np.float32)
        for _ in range(WARMUP + runs):
            session.run(None, {artifact.manifest.input_name: noise})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
        return events


def _kind(op: str) -> NodeKind:
    if op in CONVERSIONS:
        return "conversion"
    return "integer" if INTEGER.match(op) else "float"


def _layer_names(model: onnx.ModelProto) -> dict[str, str]:
    """Return the layer by each name that the runtime may give its kernel.

    These are the names of the layer, of its output, and of a Relu or Clip after it with its output. Layers are found by
    operator type, since the weights of quantized layers are not constants but outputs of DequantizeLinear.
    """
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    names = {name: node.name for node in layers for name in (node.name, node.output[0])}
    for node in model.graph.node:
        if node.op_type in CLAMPING_OPS and node.input[0] in names:
            names[node.output[0]] = names[node.input[0]]
            names[node.name] = names[node.input[0]]
    return names
