"""The times of operators that were reverted to float."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from searches import PREPROCESSING, search, shifted_model

from compress.quantization import float_layers
from compress.quantization.config import Quantize
from compress.quantization.search.candidates import attempt
from compress.quantization.search.costs import with_costs
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.files import sha256_file
from runtimes.lineage import RevertedOperator
from runtimes.target import Target


def test_kernels_before_and_after_and_the_latency_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_layers, "FIRST_TIMING", Timing(warmup=1, blocks=2, runs_per_block=1))
    monkeypatch.setattr(float_layers, "MIN_BLOCKS", 2)
    monkeypatch.setattr(float_layers, "MAX_BLOCKS", 2)
    path = tmp_path / "float32.onnx"
    onnx.save(shifted_model(), path)
    float32 = Artifact(path, Manifest(
        sha256_file(path), path.stat().st_size, "onnx", "float32", "x", (None, 3, 8, 8), "y", PREPROCESSING,
        tuple("abcde"),
    ))  # fmt: skip
    best, finished = search(shifted_model(), Quantize(allow_poor=True), scheme="x86-vnni")
    after = attempt(finished, best.graph, frozenset({"gemm"})).quantized.model
    reverted = [RevertedOperator("gemm", "Gemm", 3.0), RevertedOperator("fused away", "Add", 4.0)]
    (gemm, fused), added_ms = with_costs(reverted, float32, Target("here"), best.quantized.model, after)
    assert (gemm.name, gemm.op, gemm.sqnr_db) == ("gemm", "Gemm", 3.0)
    assert gemm.integer_ms is not None
    assert gemm.float_ms is not None
    assert fused == reverted[1]
    assert -5 < added_ms < 5
