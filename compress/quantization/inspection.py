"""What really runs: which operators ONNX Runtime executes of a file, in which arithmetic, and how long each takes."""

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


def what_runs(artifact: Artifact, target: Target, runs: int = 20) -> tuple[RuntimeNode, ...]:
    """Return what ONNX Runtime executes of an ONNX artifact on the CPU, in order; the input is seeded noise."""
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
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[Any, Any, Any], list[float]] = {}
    for event in events:
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


def lone_conversions(nodes: tuple[RuntimeNode, ...]) -> tuple[RuntimeNode, ...]:
    """Return the Q and DQ that stand between operators: all but those before the first and behind the last of them."""
    computing = [index for index, node in enumerate(nodes) if node.kind != "conversion"]
    inner = nodes[computing[0] : computing[-1] + 1] if computing else ()
    return tuple(node for node in inner if node.op in ("QuantizeLinear", "DequantizeLinear"))


def _kind(op: str) -> NodeKind:
    if op in CONVERSIONS:
        return "conversion"
    return "integer" if INTEGER.match(op) else "float"


def _layer_names(model: onnx.ModelProto) -> dict[str, str]:
    """Return the layer by every name that the runtime may give its kernel: its own, its output's, its clamp's output's.

    Quantized layers read dequantized constants, so they are told by their operator.
    """
    names = {node.name: node for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    found = {name: name for name in names} | {node.output[0]: name for name, node in names.items()}
    for node in model.graph.node:
        if node.op_type in CLAMPING_OPS and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
            found[node.name] = found[node.input[0]]
    return found
