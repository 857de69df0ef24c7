"""Tests of the OpenVINO backend against ONNX Runtime on a small residual network."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphs
import pytest

from export.quantize import insert_qdq
from runtimes.artifact import Artifact, Manifest
from runtimes.backends import ov
from runtimes.errors import ArtifactError, UnavailableError
from runtimes.target import Target

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed: pip install -e '.[openvino]'"
)
TARGET = Target("board", runtime="ov")
MODEL = onnx_graphs.residual_model(3)
IMAGES = np.random.default_rng(3).standard_normal((7, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def onnx_artifact(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> Callable[..., Artifact]:
    """Return a maker of ONNX artifacts; its keywords replace manifest fields."""

    def make(content: bytes | None = None, **fields: Any) -> Artifact:
        path = tmp_path / "small.onnx"
        path.write_bytes(MODEL.SerializeToString() if content is None else content)
        usual = {"format": "onnx", "input_name": "x", "output_name": "y", "input_shape": (None, 3, 8, 8)}
        return Artifact(path, make_manifest(**{**usual, "labels": tuple("abcde"), **fields}))

    return make


@needs_openvino
@pytest.mark.parametrize("count", [1, 2, 7])
def test_logits_are_onnx_runtimes_for_any_batch(onnx_artifact: Callable[..., Artifact], count: int) -> None:
    session = ov.load(onnx_artifact(), TARGET)
    (found,) = session.run(IMAGES[:count])
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_allclose(found, onnx_graphs.run_model(MODEL, IMAGES[:count]), rtol=1e-4, atol=1e-5)
    session.close()


@needs_openvino
def test_a_quantized_file_is_near_its_exact_sums(onnx_artifact: Callable[..., Artifact]) -> None:
    scheme = onnx_graphs.unsigned_scheme("unknown")  # right on processors whose sums saturate, too
    quantized = insert_qdq(MODEL, onnx_graphs.ranges_of(MODEL, IMAGES, scheme), scheme).model
    (found,) = ov.load(onnx_artifact(quantized.SerializeToString()), TARGET).run(IMAGES)
    assert onnx_graphs.sqnr_db(onnx_graphs.run_model(quantized, IMAGES, exact=True), found) > 25


@needs_openvino
def test_the_answer_is_not_overwritten_by_the_next_run(onnx_artifact: Callable[..., Artifact]) -> None:
    session = ov.load(onnx_artifact(), TARGET)
    (first,) = session.run(IMAGES)
    kept = first.copy()
    session.run(-IMAGES)
    np.testing.assert_array_equal(first, kept)


@needs_openvino
def test_float32_stays_float32_and_threads_are_the_targets(
    onnx_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    seen: list[dict[str, Any]] = []
    real = openvino.Core.compile_model

    def record(core: Any, model: Any, device: str, options: dict[str, Any]) -> Any:
        seen.append(options)
        return real(core, model, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", record)
    ov.load(onnx_artifact(), TARGET)
    assert [(options["INFERENCE_PRECISION_HINT"], options["INFERENCE_NUM_THREADS"]) for options in seen] == [("f32", 1)]


@needs_openvino
def test_threads_that_the_machine_has_not_are_unavailable(onnx_artifact: Callable[..., Artifact]) -> None:
    threads = 2 * (os.cpu_count() or 1)
    with pytest.raises(UnavailableError, match=f"asks for {threads} threads, OpenVINO gives"):
        ov.load(onnx_artifact(), Target("board", runtime="ov", threads=threads))


@needs_openvino
def test_a_provider_that_it_has_not_is_unavailable(onnx_artifact: Callable[..., Artifact]) -> None:
    with pytest.raises(UnavailableError, match="no provider cuda here; use cpu"):
        ov.load(onnx_artifact(), Target("board", runtime="ov", provider="cuda"))


@needs_openvino
@pytest.mark.parametrize("content", [b"", b"no protobuf" * 20, MODEL.SerializeToString()[:-20]])
def test_a_file_that_openvino_refuses_is_named(onnx_artifact: Callable[..., Artifact], content: bytes) -> None:
    artifact = onnx_artifact(content)
    with pytest.raises(ArtifactError) as caught:
        ov.load(artifact, TARGET)
    assert str(artifact.path) in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_openvino
@pytest.mark.parametrize(
    "fields", [{"input_name": "pixels"}, {"output_name": "scores"}, {"input_shape": (None, 3, 9, 9)}]
)
def test_a_manifest_of_another_network_is_an_artifact_error(
    onnx_artifact: Callable[..., Artifact], fields: dict[str, Any]
) -> None:
    with pytest.raises(ArtifactError, match="its manifest"):
        ov.load(onnx_artifact(**fields), TARGET)


@needs_openvino
def test_a_fake_file_is_refused_for_its_format(onnx_artifact: Callable[..., Artifact]) -> None:
    with pytest.raises(ArtifactError, match="runs ONNX files, this is fake"):
        ov.load(onnx_artifact(format="fake"), TARGET)


def test_without_openvino_the_package_to_install_is_named(
    onnx_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UnavailableError, match="pip install openvino"):
        ov.load(onnx_artifact(), TARGET)
