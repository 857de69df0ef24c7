"""Measure what operators that were reverted to float cost in latency."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from compress.quantization.float_layers import latencies, temporary_artifact
from compress.quantization.inspection import executed_operators
from runtimes.artifact import Artifact
from runtimes.lineage import RevertedOperator
from runtimes.target import Target


def with_costs(
    reverted: Sequence[RevertedOperator], float32: Artifact, target: Target, before: onnx.ModelProto,
    after: onnx.ModelProto,
) -> tuple[tuple[RevertedOperator, ...], float]:  # fmt: skip
    """Return the operators with the times of their kernels, and the latency that all add, p50 in ms.

    before, after: quantized models without and with these operators in float. The latency includes conversions between
    integers and float, and what the runtime no longer fuses. Operators that it fuses have no time of their own.
    """
    integer, in_float = (kernel_times(float32, target, model) for model in (before, after))
    operators = tuple(
        replace(operator, integer_ms=integer.get(operator.name), float_ms=in_float.get(operator.name))
        for operator in reverted
    )
    first, second = latencies(float32, target, before, after)
    return operators, second.latency_ms_p50 - first.latency_ms_p50


def kernel_times(float32: Artifact, target: Target, model: onnx.ModelProto) -> dict[str, float]:
    """Return the milliseconds of each operator's kernel by the operator's name; of kernels without one, by theirs.

    float32: artifact with the same inputs and outputs.
    """
    with tempfile.TemporaryDirectory() as folder:
        artifact = temporary_artifact(float32, Path(folder) / "model.onnx", model)
        executed = executed_operators(artifact, target)
    operators = {node.output[0]: node.name for node in model.graph.node}  # some kernels are named after their output
    times: dict[str, float] = {}
    for node in executed:
        name = node.layer or operators.get(node.name, node.name)
        times[name] = times.get(name, 0.0) + node.time_ms
    return times
