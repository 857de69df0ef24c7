"""Operators that stay float: the cheapest division of small graphs, against all others, and that of real kernels."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from searches import PREPROCESSING

from compress.quantization import float_layers
from compress.quantization.schemes import SCHEMES
from compress.quantization.search.float_operators import (
    Times,
    by_kernel_times,
    cheapest,
    faster_in_float,
    no_proposals,
)
from export.layers import layers_of
from export.plan import plan_quantization
from export.quantize import insert_qdq
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.files import sha256_file
from runtimes.target import Target

SCHEME = SCHEMES["x86-vnni"]
MODEL = onnx_graphs.residual_model(channels=3)
QUANTIZED = insert_qdq(MODEL, dict.fromkeys(plan_quantization(MODEL, SCHEME).ranged, (-1.0, 1.0)), SCHEME)
OPERATORS = [node.name for node in MODEL.graph.node if node.name in QUANTIZED.plan.integer_nodes]
WEIGHT = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
MILLISECONDS = st.lists(st.integers(0, 9), min_size=4, max_size=4)


def times(
    integer: dict[str, float], in_float: dict[str, float], conversion_ms: float, model: onnx.ModelProto = MODEL
) -> Times:
    tensors = ["x", *(name for node in model.graph.node for name in node.output)]
    return Times(integer, in_float, dict.fromkeys(tensors, conversion_ms))


def test_operators_are_float_only_where_that_outweighs_the_conversions() -> None:
    integer = dict.fromkeys(OPERATORS, 1.0) | {"depthwise": 9.0}
    in_float = dict.fromkeys(OPERATORS, 9.0) | {"depthwise": 3.0}
    assert cheapest(MODEL, QUANTIZED.plan, times(integer, in_float, 1.0)) == {"depthwise"}
    assert cheapest(MODEL, QUANTIZED.plan, times(integer, in_float, 4.0)) == set()


def test_equal_times_are_no_reason_for_float() -> None:
    equal = dict.fromkeys(OPERATORS, 1.0)
    assert cheapest(MODEL, QUANTIZED.plan, times(equal, equal, 0.0)) == set()


def test_few_weights_become_float_however_much_faster_that_is() -> None:
    integer, in_float = dict.fromkeys(OPERATORS, 2.0), dict.fromkeys(OPERATORS, 1.0)
    weights = {name: layer.weight.size for name, layer in layers_of(MODEL).items()}
    for share in (1.0, 0.9, 0.5, 0.2, 0.1, 0.0):
        names = faster_in_float(MODEL, QUANTIZED, times(integer, in_float, 0.01), share)
        assert sum(weights[name] for name in names & weights.keys()) <= share * sum(weights.values())
        assert names >= set(OPERATORS) - weights.keys()  # operators without weights are not held back
        assert bool(names & weights.keys()) == (share >= 0.2)  # the depthwise layer has 72 of 392 weights


@given(MILLISECONDS, MILLISECONDS, st.integers(0, 5))
def test_no_other_division_of_a_chain_is_cheaper(integer: list[int], in_float: list[int], conversion: int) -> None:
    model = chain(4)
    plan = plan_quantization(model, SCHEME)
    names = [node.name for node in model.graph.node if node.name in plan.integer_nodes]
    found = cheapest(model, plan, times(dict(zip(names, integer, strict=True)),
                                        dict(zip(names, in_float, strict=True)), conversion, model))  # fmt: skip

    def cost(kinds: tuple[bool, ...]) -> int:
        kernels = sum(first if is_integer else second
                      for is_integer, first, second in zip(kinds, integer, in_float, strict=True))  # fmt: skip
        return kernels + conversion * sum(a != b for a, b in itertools.pairwise((False, *kinds, False)))

    chosen = cost(tuple(name not in found for name in names))
    assert chosen == min(cost(kinds) for kinds in itertools.product([False, True], repeat=len(names)))


def chain(count: int) -> onnx.ModelProto:
    """Return layers one after another, with the operators between them that have no choice of their own."""
    nodes, source = "", "x"
    for index in range(count):
        nodes += f"c{index} = Conv({source}, w) r{index} = Relu(c{index}) i{index} = Identity(r{index}) "
        source = f"i{index}"
    return onnx_graphs.parsed(f"{nodes} y = Identity({source})", "", [WEIGHT])


def test_a_slow_pool_of_integers_becomes_one_of_float(tmp_path: Path) -> None:
    model = onnx_graphs.parsed(
        "c = Conv(x, w) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c) d = Conv(p, w) y = Conv(d, w)", "", [WEIGHT]
    )
    ranges = dict.fromkeys(plan_quantization(model, SCHEME).ranged, (-1.0, 1.0))
    quantized = insert_qdq(model, ranges, SCHEME)
    layers = ("Conv_c", "Conv_d", "Conv_y")
    integer, in_float = (
        {"MaxPool_p": 9.0, **dict.fromkeys(layers, 1.0)},
        {"MaxPool_p": 1.0, **dict.fromkeys(layers, 5.0)},
    )
    names = cheapest(model, quantized.plan, times(integer, in_float, 1.0, model))
    assert names == {"MaxPool_p"}
    kernels = onnx_graphs.optimized_ops(insert_qdq(model, ranges, SCHEME, float_nodes=names).model, tmp_path)
    assert kernels.count("QLinearConv") == 2
    pool = kernels.index("MaxPool")
    assert "DequantizeLinear" in kernels[:pool]
    assert "QuantizeLinear" in kernels[pool:]


def test_proposals_follow_from_the_kernels_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_layers, "FIRST_TIMING", Timing(warmup=1, blocks=2, runs_per_block=1))
    path = tmp_path / "float32.onnx"
    onnx.save(MODEL, path)
    float32 = Artifact(path, Manifest(
        sha256_file(path), path.stat().st_size, "onnx", "float32", "x", (None, 3, 8, 8), "y", PREPROCESSING,
        tuple("abcde"),
    ))  # fmt: skip
    proposals = by_kernel_times(float32, Target("here"))(MODEL, QUANTIZED)
    assert len(proposals) <= 2
    assert all(names < set(OPERATORS) and set(QUANTIZED.weights) - names for names in proposals)


def test_without_measurement_there_are_no_proposals() -> None:
    assert no_proposals(MODEL, QUANTIZED) == []
