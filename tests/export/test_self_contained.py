"""Tests of export.self_contained against NumPy's normalisation and the plain file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import classifier, ranges_of, run_model, unsigned_scheme

from export.plan import plan_quantization
from export.quantize import insert_qdq
from export.self_contained import give_probabilities, self_contained, take_pixels
from export.to_onnx import INPUT_NAME, OUTPUT_NAME
from runtimes import evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.console import SilentConsole
from runtimes.errors import CompressError
from runtimes.evalset import EvalSet
from runtimes.files import sha256_file
from runtimes.lineage import SelfContainedRecord
from runtimes.measure import evaluate, measure
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

EQUAL = Preprocessing(8, 8, mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25))
UNEQUAL = Preprocessing(8, 8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CLASSES = ("cat", "dog", "owl")
QUICK = Timing(warmup=1, blocks=2, runs_per_block=2)
SCHEME = unsigned_scheme("exact")


def pixels(count: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), np.uint8)


def quantized(model: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    ranges = ranges_of(model, preprocessing.normalize(pixels()), SCHEME)
    return insert_qdq(model, {name: ranges[name] for name in plan_quantization(model, SCHEME).ranged}, SCHEME).model


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("preprocessing", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("readers", [1, 2])
def test_pixels_in_give_the_logits_of_normalised_images(preprocessing: Preprocessing, readers: int) -> None:
    model = classifier(readers)
    inside = take_pixels(model, preprocessing)
    assert inside.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    expected = run_model(model, preprocessing.normalize(pixels()))
    np.testing.assert_allclose(run_model(inside, pixels()), expected, rtol=1e-4, atol=1e-4)
    assert ("Mul" in operators(inside)) == (readers == 2), "one convolution takes the division into its weights"


@pytest.mark.parametrize(("channels", "count"), [("grey", 1), ("rgba", 4)])
def test_pixels_of_other_channels_give_the_logits_of_normalised_images(channels: Any, count: int) -> None:
    preprocessing = Preprocessing(
        8, (8, 24), mean=tuple(0.1 * n for n in range(count)), std=tuple(0.2 + 0.1 * n for n in range(count)),
        channels=channels,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, count, 3, 3)).astype(np.float32)
    nodes = [("Conv", ["images", "w"], ["c"], {}), ("GlobalAveragePool", ["c"], ["p"], {}),
             ("Flatten", ["p"], ["logits"], {})]  # fmt: skip
    model = helper.make_model(helper.make_graph(
        [helper.make_node(kind, inputs, outputs, name=kind, **options) for kind, inputs, outputs, options in nodes],
        "g", [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", count, 8, 24])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weight, "w")],
    ), opset_imports=[helper.make_opsetid("", 18)], ir_version=9)  # fmt: skip
    stored = rng.integers(0, 256, (5, 8, 24, count), np.uint8)
    expected = run_model(model, preprocessing.normalize(stored))
    np.testing.assert_allclose(run_model(take_pixels(model, preprocessing), stored), expected, rtol=1e-4, atol=1e-4)


def test_the_division_goes_into_the_step_of_a_quantizer() -> None:
    model = quantized(classifier(), EQUAL)
    inside = take_pixels(model, EQUAL)
    assert "Mul" not in operators(inside)
    expected = run_model(model, EQUAL.normalize(pixels()), exact=True)
    difference = np.abs(run_model(inside, pixels(), exact=True) - expected)
    assert np.median(difference) < 1e-6
    assert difference.max() < 0.05 * np.abs(expected).max(), "a pixel on a tie may round the other way"


def test_a_quantizer_has_one_step_so_that_three_divisions_stay_outside() -> None:
    model = quantized(classifier(), UNEQUAL)
    inside = take_pixels(model, UNEQUAL)
    assert "Mul" in operators(inside)
    expected = run_model(model, UNEQUAL.normalize(pixels()), exact=True)
    assert np.median(np.abs(run_model(inside, pixels(), exact=True) - expected)) < 1e-6


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    model, images = classifier(), EQUAL.normalize(pixels())
    logits = run_model(model, images).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(run_model(give_probabilities(model), images), expected, rtol=1e-5, atol=1e-7)


def given(folder: Path, model: onnx.ModelProto, precision: str = "float32") -> tuple[Artifact, EvalSet]:
    path = folder / "plain.onnx"
    onnx.save(model, path)
    manifest = Manifest(
        sha256_file(path), path.stat().st_size, "onnx", precision, INPUT_NAME, (None, 3, 8, 8),  # type: ignore[arg-type]
        OUTPUT_NAME, UNEQUAL, CLASSES,
    )  # fmt: skip
    labels = np.arange(16) % 3
    return Artifact(path, manifest), evalset.write(
        folder / "images", pixels(), labels, tuple(map(str, range(16))), CLASSES, UNEQUAL
    )


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_self_contained_artifact_is_measured_like_the_plain_one(tmp_path: Path, precision: str) -> None:
    model = classifier() if precision == "float32" else quantized(classifier(), UNEQUAL)
    plain, images = given(tmp_path, model, precision)
    made = self_contained(plain, tmp_path / "made.onnx", "uint8", "probabilities", images, Target("here"))
    made = Artifact.load(made.path)
    assert (made.manifest.input_dtype, made.manifest.input_layout) == ("uint8", "NHWC")
    record = made.manifest.lineage[-1]
    assert isinstance(record, SelfContainedRecord)
    assert record.parity_with_plain.agreement == 1
    taken = measure([plain, made], Target("here"), images, QUICK, SilentConsole())
    assert taken[0].predicted == taken[1].predicted
    assert taken[0].accuracy
    assert taken[1].accuracy
    assert taken[1].accuracy.loss == pytest.approx(taken[0].accuracy.loss, rel=1e-3)
    np.testing.assert_allclose(np.exp(evaluate(made, Target("here"), images)).sum(1), 1, rtol=1e-5)


def test_answers_that_change_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, images = given(tmp_path, classifier())
    monkeypatch.setattr("export.self_contained._fold", lambda graph, scale: True)
    with pytest.raises(CompressError, match="logits differ"):
        self_contained(plain, tmp_path / "made.onnx", "uint8", "logits", images, Target("here"))
