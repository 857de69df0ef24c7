"""Written bundles: contents, hashes, golden logits, and the same bytes for the same content."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_graphs import residual_model, run_model

import runtimes
from export.bundle import program, write_bundle
from runtimes import evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.files import sha256_file
from runtimes.measure import evaluate
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
ARM64 = Target("board", instruction_set="arm64", threads=4)
NAMES = {
    "bundle.json", "run.pyz", "model.onnx", "model.onnx.json", "golden.npy",
    *(f"examples/{name}" for name in ("CMakeLists.txt", "README.txt", "model.h", "predict.cpp", "predict.py")),
    "sample/evalset.json", "sample/images.npy", "sample/labels.npy",
}  # fmt: skip


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Return a small float32 ONNX artifact of two classes."""
    path = tmp_path / "model.onnx"
    model = residual_model(channels=3)
    onnx.save(model, path)
    noise = np.zeros((1, 3, 8, 8), np.float32)
    labels = tuple(f"class-{index}" for index in range(run_model(model, noise).shape[1]))
    stored = Artifact(path, Manifest(
        sha256_file(path), path.stat().st_size, "onnx", "float32", "x", (None, 3, 8, 8), "y", PREPROCESSING, labels,
        recipe="solar",
    ))  # fmt: skip
    stored.save_manifest()
    return stored


@pytest.fixture
def sample(artifact: Artifact, tmp_path: Path) -> EvalSet:
    """Return three seeded images in the folder `sample`."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    return evalset.write(
        tmp_path / "sample", images, np.zeros(3, np.int64), ("a", "b", "c"), artifact.manifest.labels, PREPROCESSING
    )


def contents(tar: Path) -> dict[str, bytes]:
    """Return the files of a tar."""
    with tarfile.open(tar) as archive:
        streams = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: stream.read() for name, stream in streams.items() if stream}


def test_a_bundle_has_the_model_the_program_the_sample_and_every_sha256(
    artifact: Artifact, sample: EvalSet, tmp_path: Path
) -> None:
    write_bundle(artifact, ARM64, tmp_path / "sample", sample, tmp_path / "out.tar")
    files = contents(tmp_path / "out.tar")
    assert set(files) == NAMES
    description = json.loads(files["bundle.json"])
    assert (description["artifact"], description["recipe"]) == ("model.onnx", "solar")
    assert Target.from_json(description["target"]) == ARM64
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "bundle.json"}
    assert description["files"] == expected
    assert files["model.onnx"] == artifact.path.read_bytes()


def test_golden_logits_are_onnx_runtimes_on_this_cpu(artifact: Artifact, sample: EvalSet, tmp_path: Path) -> None:
    write_bundle(artifact, ARM64, tmp_path / "sample", sample, tmp_path / "out.tar")
    golden = np.load(io.BytesIO(contents(tmp_path / "out.tar")["golden.npy"]), allow_pickle=False)
    assert golden.dtype == np.float32
    np.testing.assert_allclose(golden, evaluate(artifact, Target("here"), sample), rtol=1e-5, atol=1e-6)


def test_the_same_content_gives_the_same_bytes(artifact: Artifact, sample: EvalSet, tmp_path: Path) -> None:
    for name in ("first.tar", "second.tar"):
        write_bundle(artifact, ARM64, tmp_path / "sample", sample, tmp_path / name)
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    with tarfile.open(tmp_path / "first.tar") as archive:
        members = archive.getmembers()
        assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}
        assert {member.name: member.mode for member in members if member.mode != 0o644} == {"run.pyz": 0o755}


def test_the_program_is_the_whole_package_runtimes() -> None:
    content = program()
    assert content.startswith(b"#!/usr/bin/env python3\n")
    assert program() == content
    package = Path(runtimes.__file__).parent
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = {f"runtimes/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
        assert set(archive.namelist()) == {"__main__.py", *names}
        assert archive.read("runtimes/files.py") == (package / "files.py").read_bytes()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_graph_that_tensorrt_cannot_use_is_refused_before_it_is_bundled(
    artifact: Artifact, sample: EvalSet, tmp_path: Path
) -> None:
    model = onnx.load(artifact.path)
    model.graph.node.append(helper.make_node("QLinearConv", ["x"] * 8, ["z"], "odd"))
    onnx.save(model, artifact.path)
    target = Target("orin", runtime="trt", provider="cuda", compute_capability="8.7")
    with pytest.raises(InputError, match=r"model\.onnx: not usable with TensorRT: QLinearConv odd"):
        write_bundle(artifact, target, tmp_path / "sample", sample, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()
