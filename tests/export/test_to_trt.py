"""Tests of export.to_trt with TensorRT-RTX, which builds without a GPU: builds, reuse, INT8 layers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from consoles import RecordingConsole
from onnx_graphs import ranges_of

from compress.quantization.schemes import SCHEMES
from export.float16 import half_precision
from export.quantize import insert_qdq
from export.to_trt import to_trt as engine
from runtimes import engine as building
from runtimes.artifact import Artifact, Manifest, manifest_path
from runtimes.backends import trt as backend
from runtimes.console import SilentConsole
from runtimes.engine import build_for, int8_layers
from runtimes.errors import ArtifactError, CompressError, InputError, UnavailableError
from runtimes.files import sha256_file
from runtimes.lineage import BuildRecord
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

RTX = Target("rtx-sm86", runtime="trt", provider="cuda", compute_capability="8.6")
IMAGES = np.random.default_rng(1).normal(0, 1, (8, 4, 8, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def rtx() -> Any:
    reason = "tensorrt_rtx, which builds without a GPU, is not installed: pip install tensorrt-rtx-cu13"
    return pytest.importorskip("tensorrt_rtx", reason=reason)


def stored(folder: Path, model: onnx.ModelProto, precision: str, name: str = "model") -> Artifact:
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    given = model.graph.input[0].type.tensor_type.shape.dim
    batch = given[0].dim_value or None
    manifest = Manifest(
        sha256_file(path), path.stat().st_size, "onnx", precision, "x", (batch, 3, 8, 8), "y",  # type: ignore[arg-type]
        Preprocessing(8, 8), ("a", "b"),
    )  # fmt: skip
    return Artifact(path, manifest)


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    scheme = SCHEMES["tensorrt"]
    return insert_qdq(model, ranges_of(model, IMAGES, scheme), scheme).model


@pytest.mark.parametrize("capability", ["8.6", "12.0"])
@pytest.mark.parametrize("precision", ["float16", "int8", "int8 and float16"])
def test_an_engine_is_built_for_a_gpu_that_is_not_here(
    residual_model: onnx.ModelProto, tmp_path: Path, capability: str, precision: str
) -> None:
    model = int8(residual_model) if "int8" in precision else residual_model
    model = half_precision(model) if "float16" in precision else model
    console = RecordingConsole()
    target = replace(RTX, compute_capability=capability)
    made = engine(stored(tmp_path, model, precision.split()[0]), target, tmp_path / "m.engine", console)
    assert console.said == [f"build m.engine for compute capability {capability}: it does not exist yet"]
    assert Artifact.load(tmp_path / "m.engine") == made
    record = made.manifest.lineage[-1]
    assert isinstance(record, BuildRecord)
    assert (made.manifest.format, record.package, record.compute_capability) == ("trt", "tensorrt_rtx", capability)
    assert int8_layers(made.manifest) == ((4, 4) if "int8" in precision else (0, 4))
    if precision == "float16":
        assert {kind for layer in record.layers for kind in layer.inputs} == {"Half"}


def test_an_engine_that_fits_is_used_again(residual_model: onnx.ModelProto, tmp_path: Path) -> None:
    artifact, path = stored(tmp_path, residual_model, "float32"), tmp_path / "m.engine"
    first = engine(artifact, RTX, path, SilentConsole())
    console = RecordingConsole()
    assert engine(artifact, RTX, path, console) == first
    assert console.said == []


def _other_model(path: Path, artifact: Artifact) -> Artifact:
    model = onnx.load(artifact.path)
    model.doc_string = "another"
    return stored(path.parent, model, "float32", "other")


def _flip(path: Path, artifact: Artifact) -> Artifact:
    content = path.read_bytes()
    path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    return artifact


def _edit(path: Path, artifact: Artifact) -> Artifact:
    content = json.loads(manifest_path(path).read_text())
    content["lineage"][-1]["version"] = "0.1"
    manifest_path(path).write_text(json.dumps(content))
    return artifact


def _strip(path: Path, artifact: Artifact) -> Artifact:
    content = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**content, "lineage": []}))
    return artifact


def _remove(path: Path, artifact: Artifact) -> Artifact:
    manifest_path(path).unlink()
    return artifact


@pytest.mark.parametrize(("change", "why"), [
    (_other_model, "is of another other.onnx"), (_flip, "sha256 is"), (_edit, "has version 0.1, not"),
    (_strip, "has no build record"), (_remove, "no such file"),
])  # fmt: skip
def test_an_engine_that_does_not_fit_is_built_again_and_the_reason_is_told(
    residual_model: onnx.ModelProto, tmp_path: Path, change: Any, why: str
) -> None:
    artifact, path = stored(tmp_path, residual_model, "float32"), tmp_path / "m.engine"
    console = RecordingConsole()
    engine(artifact, RTX, path, SilentConsole())
    wanted = change(path, artifact)
    made = engine(wanted, RTX, path, console)
    assert len(console.said) == 1
    assert why in console.said[0]
    assert Artifact.load(path) == made


@pytest.mark.parametrize(("change", "why"), [
    ({"compute_capability": "8.9"}, "has compute_capability 8.6, not 8.9"), ({"batch": 4}, "has batch"),
])  # fmt: skip
def test_another_target_needs_another_engine(
    residual_model: onnx.ModelProto, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    artifact, path = stored(tmp_path, residual_model, "float32"), tmp_path / "m.engine"
    console = RecordingConsole()
    engine(artifact, RTX, path, SilentConsole())
    engine(artifact, replace(RTX, **change), path, console)
    assert why in console.said[0]


def test_the_batch_is_the_files_or_what_the_target_asks_for(residual_model: onnx.ModelProto, tmp_path: Path) -> None:
    dynamic = stored(tmp_path, residual_model, "float32")
    assert build_for(dynamic, replace(RTX, batch=4)).batch == (1, 4, 32)
    fixed = replace(dynamic, manifest=replace(dynamic.manifest, input_shape=(2, 3, 8, 8)))
    assert build_for(fixed, replace(RTX, batch=2)).batch == (2, 2, 2)


def test_what_can_not_be_built_is_one_line(residual_model: onnx.ModelProto, tmp_path: Path, monkeypatch: Any) -> None:
    artifact, path = stored(tmp_path, residual_model, "float32"), tmp_path / "m.engine"
    with pytest.raises(InputError, match=r"builds for the compute capabilities .*8\.6.*, not 8\.7"):
        engine(artifact, replace(RTX, compute_capability="8.7"), path, SilentConsole())
    monkeypatch.setattr(backend, "compute_capability", lambda: None)
    with pytest.raises(UnavailableError, match="set compute_capability to build"):
        engine(artifact, replace(RTX, compute_capability="auto"), path, SilentConsole())
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="needs the package tensorrt_rtx"):
        engine(artifact, RTX, path, SilentConsole())
    assert not path.exists()


def test_a_file_for_processors_is_not_built(residual_model: onnx.ModelProto, tmp_path: Path) -> None:
    scheme = SCHEMES["x86-vnni"]
    model = insert_qdq(residual_model, ranges_of(residual_model, IMAGES, scheme), scheme).model
    with pytest.raises(InputError, match="quantize for the scheme tensorrt"):
        engine(stored(tmp_path, model, "int8"), RTX, tmp_path / "m.engine", SilentConsole())


def test_older_versions_are_asked_for_what_newer_ones_always_do() -> None:
    old = SimpleNamespace(__version__="8.6.2", NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0))
    ten = SimpleNamespace(
        __version__="10.3.0", NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=3)
    )
    assert building._network_flags(old, typed=False) == 1
    assert building._network_flags(ten, typed=True) == 8


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["8.6", "12.0"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "mobilenet_v3_small"])
def test_engines_of_whole_networks(name: str, capability: str, tmp_path: Path) -> None:
    torch, models = pytest.importorskip("torch"), pytest.importorskip("torchvision.models")
    from export.rewrites.hard_activations import rewrite_hard_activations
    from export.to_onnx import to_onnx

    torch.manual_seed(0)
    network = getattr(models, name)(weights=None, num_classes=10).train()
    with torch.no_grad():
        network(torch.randn(8, 3, 96, 96))  # statistics for its BatchNorms
    float32 = onnx.load(to_onnx(network, tmp_path / "m.onnx", 96, 18, None).path)
    images = np.random.default_rng(1).normal(0, 1, (8, 3, 96, 96)).astype(np.float32)
    scheme = SCHEMES["tensorrt"]
    given = rewrite_hard_activations(float32) if name == "mobilenet_v3_small" else float32
    quantized = insert_qdq(given, ranges_of(given, images, scheme), scheme)
    target = replace(RTX, compute_capability=capability)
    for model, precision in ((quantized.model, "int8"), (half_precision(quantized.model), "int8"),
                             (half_precision(float32), "float16")):  # fmt: skip
        made = engine(stored(tmp_path, model, precision), target, tmp_path / "m.engine", SilentConsole())
        found = int8_layers(made.manifest)
        assert found is not None
        print(
            f"{name} {precision} SM{capability}: {made.manifest.size_bytes / 1e6:.1f} MB, {found[0]} of {found[1]} int8"
        )
        assert found[0] == (len(quantized.weights) if precision == "int8" else 0)


def test_an_engine_is_not_loaded_without_its_gpu(residual_model: onnx.ModelProto, tmp_path: Path) -> None:
    made = engine(stored(tmp_path, residual_model, "float32"), RTX, tmp_path / "m.engine", SilentConsole())
    if backend.compute_capability() is None:
        with pytest.raises(UnavailableError, match="no usable NVIDIA GPU"):
            backend.load(made, RTX)
    with pytest.raises(ArtifactError, match="runs engines, this is onnx"):
        backend.load(stored(tmp_path, residual_model, "float32"), RTX)


def test_an_engine_for_another_gpu_or_version_is_not_loaded(
    residual_model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(stored(tmp_path, residual_model, "float32"), RTX, tmp_path / "m.engine", SilentConsole())
    monkeypatch.setattr(backend, "compute_capability", lambda: "8.9")
    with pytest.raises(ArtifactError, match=r"was built for compute capability 8\.6, this is 8\.9; build it here"):
        backend.load(made, RTX)
    record = made.manifest.lineage[-1]
    assert isinstance(record, BuildRecord)
    other = replace(made, manifest=replace(made.manifest, lineage=(replace(record, version="0.1"),)))
    with pytest.raises(ArtifactError, match=r"was built for tensorrt_rtx 0\.1"):
        backend.load(other, RTX)


def test_cuda_errors_are_told() -> None:
    success = object()
    cuda = SimpleNamespace(cudaError_t=SimpleNamespace(cudaSuccess=success))
    assert backend._done(cuda, (success, 7)) == 7
    assert backend._done(cuda, (success,)) is None
    with pytest.raises(CompressError, match="CUDA error: cudaErrorMemoryAllocation"):
        backend._done(cuda, (SimpleNamespace(name="cudaErrorMemoryAllocation"),))
