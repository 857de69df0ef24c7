"""INT8 artifacts by both methods for every scheme, and their manifests."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest
from consoles import RecordingConsole

from compress.quantization import float_layers, int8
from compress.quantization.config import Quantize
from compress.quantization.int8 import make_int8
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES, scheme_named
from compress.verdict.statistics import Estimate
from export.layers import layers_of, to_rows
from export.scheme import EXACT_KERNELS
from runtimes import environment, evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.console import Console, SilentConsole
from runtimes.errors import CompressError, InputError
from runtimes.files import sha256_file
from runtimes.lineage import KernelProbe, QuantizeRecord, VerifyRecord
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
LABELS = ("a", "b", "c", "d", "e")


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten latency measurements, whose results no test depends on."""
    monkeypatch.setattr(float_layers, "FIRST_TIMING", Timing(warmup=1, blocks=2, runs_per_block=1))
    monkeypatch.setattr(float_layers, "MIN_BLOCKS", 2)
    monkeypatch.setattr(float_layers, "MAX_BLOCKS", 2)


@pytest.fixture
def images(tmp_path: Path) -> evalset.EvalSet:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    names = tuple(f"{index}.png" for index in range(24))
    return evalset.write(tmp_path / "images", pixels, None, names, LABELS, PREPROCESSING)


def float32(folder: Path, batch: int | None = None) -> Artifact:
    model = onnx_graphs.residual_model(channels=3)
    if batch:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = batch
    path = folder / "float32.onnx"
    onnx.save(model, path)
    artifact = Artifact(path, Manifest(
        sha256_file(path), path.stat().st_size, "onnx", "float32", "x", (batch, 3, 8, 8), "y", PREPROCESSING, LABELS
    ))  # fmt: skip
    artifact.save_manifest()
    return artifact


def make(
    folder: Path, images: evalset.EvalSet, scheme: str, console: Console | None = None, **settings: object
) -> Artifact:
    request = QuantizationRequest(images, SCHEMES[scheme], Quantize(**settings), console or SilentConsole())
    return make_int8(float32(folder), Target("here"), request, folder / "int8.onnx")


def quantized(artifact: Artifact) -> QuantizeRecord:
    """Return the first lineage record of an INT8 artifact."""
    record = artifact.manifest.lineage[0]
    assert isinstance(record, QuantizeRecord)
    return record


def verified(artifact: Artifact) -> VerifyRecord:
    """Return the last lineage record of an INT8 artifact."""
    record = artifact.manifest.lineage[-1]
    assert isinstance(record, VerifyRecord)
    return record


def parity_sqnr_db(artifact: Artifact) -> float:
    """Return the SQNR that the manifest of an INT8 artifact holds."""
    sqnr = verified(artifact).parity_with_float32.sqnr_db
    assert sqnr is not None
    return sqnr


def sqnr_db(expected: np.ndarray, answered: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - answered) ** 2)))


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_file_of_the_method_compress_is_accurate_without_a_session_option(
    scheme: str, images: evalset.EvalSet, tmp_path: Path
) -> None:
    artifact = make(tmp_path, images, scheme)
    assert Artifact.load(tmp_path / "int8.onnx").manifest == Artifact.load(artifact.path).manifest
    assert (artifact.manifest.scheme, artifact.manifest.precision) == (scheme, "int8")
    assert artifact.manifest.session_options == {}
    batch = PREPROCESSING.normalize(images.images)
    expected = onnx_graphs.run_model(onnx_graphs.residual_model(channels=3), batch)
    elsewhere = SCHEMES[scheme].sums == "exact"  # exact sums are needed, which processors with 16-bit sums do not have
    assert sqnr_db(expected, onnx_graphs.run_model(onnx.load(artifact.path), batch, wide_sums=elsewhere)) > 25
    record = quantized(artifact)
    assert (record.method, record.calibration_images) == ("compress", 24)
    assert record.layers is not None
    assert [layer.name for layer in record.layers] == ["first", "depthwise", "pointwise", "gemm"]


@pytest.mark.parametrize("method", ["compress", "nncf"])
@pytest.mark.parametrize(("count", "held_out"), [(9, 0), (10, 3)])
def test_of_fewer_than_ten_images_the_manifest_holds_no_agreement(
    method: str, count: int, held_out: int, images: evalset.EvalSet, tmp_path: Path
) -> None:
    if method == "nncf":
        pytest.importorskip("nncf")
    artifact = make(tmp_path, images.take(np.arange(count)), "generic", method=method)
    assert (verified(artifact).parity_with_float32.agreement is None) == (count < 10)
    loaded = Artifact.load(artifact.path).manifest.lineage
    assert loaded == artifact.manifest.lineage  # read back as records, not as unknown objects
    if method == "compress":
        record = quantized(artifact)
        assert record.held_out_images == held_out
        assert record.attempts
        assert {attempt.agreement is None for attempt in record.attempts} == {count < 10}


def test_settings_that_nncf_ignores_are_named(images: evalset.EvalSet, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    console = RecordingConsole()
    make(tmp_path, images, "generic", console, method="nncf", calibration={"method": "entropy"})
    assert "quantize.calibration is ignored: the method nncf chooses its own ranges" in console.said


def test_no_two_neighbouring_products_overflow_int16_without_vnni(
    images: evalset.EvalSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        int8, "runs_here", lambda scheme: False
    )  # otherwise measured latency decides how many layers stay float
    artifact = make(tmp_path, images, "x86-avx2")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(artifact.path).graph.initializer}
    checked = 0
    for name, layer in layers_of(onnx_graphs.residual_model(channels=3)).items():
        if f"{name}_weight_quantized" in stored and not layer.depthwise:
            rows = to_rows(stored[f"{name}_weight_quantized"].astype(np.float64), layer.axis)
            pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2).sum(2)
            assert 255 * np.abs(pairs).max() <= 32767
            checked += 1
    assert checked >= 2


def test_generic_weights_cannot_overflow_in_any_order(images: evalset.EvalSet, tmp_path: Path) -> None:
    artifact = make(tmp_path, images, "generic")
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(artifact.path).graph.initializer
               if tensor.name.endswith("_weight_quantized")]  # fmt: skip
    assert weights
    assert max(2 * 255 * np.abs(weight.astype(int)).max() for weight in weights) <= 32767


@pytest.mark.parametrize("scheme", ["x86-avx2", "x86-vnni"])
def test_nncf_files_carry_the_session_option_for_exact_sums(
    scheme: str, images: evalset.EvalSet, tmp_path: Path
) -> None:
    artifact = make(tmp_path, images, scheme, method="nncf")
    assert artifact.manifest.scheme == "nncf"
    assert artifact.manifest.session_options == (EXACT_KERNELS if scheme == "x86-avx2" else {})
    from nncf.telemetry import telemetry

    assert os.environ["NNCF_CI"] == "1"
    assert type(telemetry).__name__ in ("MagicMock", "NNCFTelemetryStub")
    batch = PREPROCESSING.normalize(images.images)
    expected = onnx_graphs.run_model(onnx_graphs.residual_model(channels=3), batch)
    assert sqnr_db(expected, onnx_graphs.run_model(onnx.load(artifact.path), batch, exact=True)) > 20


@pytest.mark.parametrize("method", ["compress", "nncf"])
def test_a_fixed_batch(method: str, images: evalset.EvalSet, tmp_path: Path) -> None:
    request = QuantizationRequest(images, SCHEMES["x86-vnni"], Quantize(method=method))
    artifact = make_int8(float32(tmp_path, batch=5), Target("here", batch=5), request, tmp_path / "int8.onnx")
    assert parity_sqnr_db(artifact) > 20


def here() -> str:
    return environment.detect_instruction_set()


@pytest.mark.parametrize(("low", "high", "reported"), [(0.5, 0.9, True), (0.9, 1.1, False), (1.2, 1.4, False)])
def test_int8_that_is_slower_is_reported(
    images: evalset.EvalSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, low: float, high: float, reported: bool
) -> None:
    monkeypatch.setattr(int8, "latency_ratio", lambda *_: Estimate((low + high) / 2, low, high))
    console = RecordingConsole()
    artifact = make(tmp_path, images, here(), console)
    assert any("INT8 is slower than float32" in line for line in console.said) == reported
    ratio = quantized(artifact).speedup_p50
    assert ratio is not None
    assert ratio.low == low


def test_unexpected_saturation_is_an_error(
    images: evalset.EvalSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "probe", lambda: KernelProbe(False, True, False, True))
    with pytest.raises(CompressError, match="saturate with the scheme"):
        make(tmp_path, images, here())
    assert not (tmp_path / "int8.onnx").exists()


def test_executed_operators_are_in_the_manifest_for_this_machines_scheme(
    images: evalset.EvalSet, tmp_path: Path
) -> None:
    runs = verified(make(tmp_path, images, here())).runs
    assert runs is not None
    assert any(node.kind == "integer" for node in runs["int8"])
    assert not any(node.kind == "integer" for node in runs["float32"])


def test_scheme_names() -> None:
    assert scheme_named("auto").name == here()
    assert scheme_named("tensorrt").signed
    with pytest.raises(InputError, match="unknown quantization scheme 'vnni'; choose one of auto, x86-avx2"):
        scheme_named("vnni")


@pytest.mark.parametrize("method", ["compress", "nncf"])
def test_the_manifest_records_the_origin_and_the_quantization(
    method: str, images: evalset.EvalSet, tmp_path: Path
) -> None:
    artifact = make(tmp_path, images, "arm64", method=method)
    manifest, before = artifact.manifest, Artifact.load(tmp_path / "float32.onnx").manifest
    assert (manifest.sha256, manifest.size_bytes) == (sha256_file(artifact.path), artifact.path.stat().st_size)
    assert (manifest.input_shape, manifest.preprocessing, manifest.labels) == (
        before.input_shape, before.preprocessing, before.labels
    )  # fmt: skip
    record = quantized(artifact)
    assert (record.from_sha256, record.calibration_sha256) == (before.sha256, images.sha256)
    batch = PREPROCESSING.normalize(images.images)
    expected = onnx_graphs.run_model(onnx_graphs.residual_model(channels=3), batch)
    exact = onnx_graphs.run_model(onnx.load(artifact.path), batch, wide_sums=True)
    parity = verified(artifact).parity_with_float32
    assert parity.images == 24
    assert parity.agreement == np.mean(expected.argmax(1) == exact.argmax(1))
    if method == "compress":
        assert record.attempts is not None
        assert [attempt.step for attempt in record.attempts][:2] == [
            "nearest rounding", "analytic bias correction"
        ]  # fmt: skip
        assert parity.sqnr_db == pytest.approx(sqnr_db(expected, exact), abs=0.1)


@pytest.mark.parametrize("scheme", ["x86-vnni", "tensorrt"])
def test_hard_swish_becomes_integer_except_for_tensorrt(scheme: str, images: evalset.EvalSet, tmp_path: Path) -> None:
    model = onnx_graphs.residual_model(channels=3)
    relu = next(node for node in model.graph.node if node.name == "relu")
    relu.op_type = "HardSwish"
    onnx.save(model, tmp_path / "swish.onnx")
    before = float32(tmp_path)
    before = Artifact(tmp_path / "swish.onnx", replace(before.manifest, sha256=sha256_file(tmp_path / "swish.onnx")))
    request = QuantizationRequest(images, SCHEMES[scheme], Quantize())
    artifact = make_int8(before, Target("here"), request, tmp_path / "int8.onnx")
    kinds = {node.op_type for node in onnx.load(artifact.path).graph.node}
    assert ("HardSwish" in kinds) == (scheme == "tensorrt")
    assert parity_sqnr_db(artifact) > 25
    assert ("HardSwish" in (quantized(artifact).float_ops or {})) == (scheme == "tensorrt")
