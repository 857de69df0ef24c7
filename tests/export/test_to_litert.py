"""Tests of export.to_litert; most need litert-torch, in a separate environment."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest

from export import to_litert
from export.quantize import insert_qdq
from export.to_litert import main
from runtimes.artifact import Artifact, Manifest, manifest_path
from runtimes.clock import Timing
from runtimes.console import SilentConsole
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.files import sha256_file
from runtimes.lineage import LitertRecord
from runtimes.measure import measure
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

needs_converter = pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is None,
    reason="litert-torch is not installed: pip install -e '.[litert-convert]' in a separate environment",
)
MODEL = onnx_graphs.residual_model(3)
IMAGES = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)


def quantized() -> onnx.ModelProto:
    scheme = onnx_graphs.unsigned_scheme()
    return insert_qdq(MODEL, onnx_graphs.ranges_of(MODEL, IMAGES, scheme), scheme).model


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Artifact]:
    """Return a maker of ONNX artifacts from a graph."""

    def write(model: onnx.ModelProto = MODEL, precision: str = "float32", format_: str = "onnx") -> Artifact:
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        manifest = Manifest(sha256_file(path), path.stat().st_size, format_, precision, "x", (None, 3, 8, 8), "y",  # type: ignore[arg-type]
                            Preprocessing(8, 8), tuple("abcde"), session_options={"session.x": "1"})  # fmt: skip
        artifact = Artifact(path, manifest)
        artifact.save_manifest()
        return artifact

    return write


@needs_converter
@pytest.mark.parametrize("batch", [1, 4])
def test_a_float32_file_answers_the_same_in_litert(make: Callable[..., Artifact], tmp_path: Path, batch: int) -> None:
    made = to_litert.to_litert(make(), tmp_path / "net.tflite", IMAGES, batch)
    loaded = Artifact.load(tmp_path / "net.tflite")
    assert loaded == made
    manifest = loaded.manifest
    assert (manifest.format, manifest.precision, manifest.session_options) == ("tflite", "float32", {})
    assert manifest.input_shape == (batch, 3, 8, 8)
    record = manifest.lineage[-1]
    assert isinstance(record, LitertRecord)
    assert record.parity_with_onnx.max_logit_difference < 1e-4
    (found,) = measure([loaded], Target("t", runtime="litert", batch=batch), None, Timing(1, 2, 1), SilentConsole())
    assert found.latency_ms_p50 > 0


@needs_converter
def test_an_int8_file_keeps_its_integers(make: Callable[..., Artifact], tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    made = to_litert.to_litert(make(quantized(), "int8"), tmp_path / "net.tflite", IMAGES)
    assert made.manifest.precision == "int8"
    record = made.manifest.lineage[-1]
    assert isinstance(record, LitertRecord)
    assert record.parity_with_onnx.sqnr_db is not None
    assert record.parity_with_onnx.sqnr_db > 30
    interpreter = Interpreter(model_path=str(made.path))
    tensors = {detail["index"]: detail["dtype"] for detail in interpreter.get_tensor_details()}
    layers = [operator for operator in interpreter._get_ops_details() if "CONV_2D" in operator["op_name"]]
    assert len(layers) == 3  # the Gemm gives float logits, which LiteRT computes in float
    for layer in layers:
        assert [tensors[index] for index in layer["inputs"]] == [np.int8, np.int8, np.int32]
    expected = onnx_graphs.constants_of(quantized())["pointwise_weight_quantized"]
    integers = next(interpreter.get_tensor(detail["index"]) for detail in interpreter.get_tensor_details()
                    if detail["dtype"] == np.int8 and list(detail["shape"]) == [8, 1, 1, 8])  # fmt: skip
    np.testing.assert_array_equal(integers[:, 0, 0, :], expected[:, :, 0, 0])


@needs_converter
def test_a_conversion_that_changes_the_answers_is_an_error(
    make: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_litert, "_exact_answers", lambda model, images: np.ones((len(images), 5), np.float32))
    with pytest.raises(CompressError, match=r"net\.tflite: logits differ by"):
        to_litert.to_litert(make(), tmp_path / "net.tflite", IMAGES)
    with pytest.raises(CompressError, match=r"net\.tflite: its answers are .* dB .* the conversion is wrong"):
        to_litert.to_litert(make(quantized(), "int8"), tmp_path / "net.tflite", IMAGES)
    assert not manifest_path(tmp_path / "net.tflite").exists()


@needs_converter
def test_the_command_converts_and_says_how_well(
    make: Callable[..., Artifact], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make().path)]) == 0
    assert "100.0% of 64 images as in the ONNX file" in capfd.readouterr().out
    assert json.loads(manifest_path(make().path.with_suffix(".tflite")).read_text())["format"] == "tflite"


def test_the_command_tells_an_error_in_one_line(
    make: Callable[..., Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make().path) + ".none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_can_not_be_converted_is_told(make: Callable[..., Artifact], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is fake; give an ONNX file"):
        to_litert.to_litert(make(format_="fake"), tmp_path / "net.tflite", IMAGES)
    with pytest.raises(InputError, match="12 images are too few for batch 13"):
        to_litert.to_litert(make(), tmp_path / "net.tflite", IMAGES, 13)


def test_without_the_converter_its_environment_is_named(
    make: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(UnavailableError, match="separate environment: pip install litert-torch"):
        to_litert.to_litert(make(), tmp_path / "net.tflite", IMAGES)
