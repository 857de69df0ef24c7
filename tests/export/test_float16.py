"""Tests of export.float16: outputs within half precision, float32 interface, integers unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx_graphs import classifier, ranges_of, run_model, sqnr_db

from compress.quantization.schemes import SCHEMES
from export.float16 import half_precision, to_float16
from export.quantize import insert_qdq
from runtimes import evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import CompressError
from runtimes.files import sha256_file
from runtimes.lineage import Float16Record
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

IMAGES = np.random.default_rng(1).normal(0, 1, (8, 4, 8, 8)).astype(np.float32)


def kinds(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer if tensor.data_type != TensorProto.INT64}


def test_weights_and_arithmetic_are_half_and_the_outside_is_float32(residual_model: onnx.ModelProto) -> None:
    half = half_precision(residual_model)
    assert kinds(half) == {TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)] == [1, 1]
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2
    assert sqnr_db(run_model(residual_model, IMAGES), run_model(half, IMAGES)) > 50
    stored, before = (sum(len(one.raw_data) for one in model.graph.initializer) for model in (half, residual_model))
    assert stored == before / 2


def test_integers_stay_and_scales_become_half(residual_model: onnx.ModelProto) -> None:
    scheme = SCHEMES["tensorrt"]
    quantized = insert_qdq(residual_model, ranges_of(residual_model, IMAGES, scheme), scheme).model
    half = half_precision(quantized)
    assert kinds(half) == {TensorProto.FLOAT16, TensorProto.INT8}
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in one.graph.initializer if tensor.data_type == 3}
        for one in (quantized, half)
    )
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert sqnr_db(run_model(quantized, IMAGES), run_model(half, IMAGES)) > 30


@pytest.mark.parametrize(("factor", "message"), [(1e9, "more than float16 can"), (np.inf, "more than float16 can")])
def test_weights_beyond_float16_are_told(residual_model: onnx.ModelProto, factor: float, message: str) -> None:
    stored = next(one for one in residual_model.graph.initializer if one.data_type == TensorProto.FLOAT)
    stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored) * np.float32(factor), stored.name))
    with pytest.raises(CompressError, match=message):
        half_precision(residual_model)


def test_the_artifact_says_how_near_it_is(tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    onnx.save(classifier(), path)
    preprocessing = Preprocessing(8, 8)
    manifest = Manifest(
        sha256_file(path), path.stat().st_size, "onnx", "float32", "images", (None, 3, 8, 8), "logits", preprocessing,
        ("a", "b", "c"),
    )  # fmt: skip
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 8, 3), np.uint8)
    images = evalset.write(tmp_path / "images", pixels, None, tuple("abcdefgh"), ("a", "b", "c"), preprocessing)
    to_float16(Artifact(path, manifest), tmp_path / "half.onnx", images, Target("here"))
    made = Artifact.load(tmp_path / "half.onnx").manifest
    assert (made.precision, made.opset) == ("float16", 19)
    record = made.lineage[-1]
    assert isinstance(record, Float16Record)
    assert record.parity_with_given.agreement == 1
    assert 0 < record.parity_with_given.max_logit_difference < 0.1
