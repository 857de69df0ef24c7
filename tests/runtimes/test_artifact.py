"""Tests of runtimes.artifact: manifests in JSON, checks of file and manifest, derived artifacts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.artifact import Artifact, Manifest, manifest_path
from runtimes.errors import ArtifactError, InputError
from runtimes.lineage import GivenRecord, StageRecord, read_lineage
from runtimes.preprocessing import Preprocessing

TEXT = st.text(max_size=8)
OPTIONS = st.dictionaries(TEXT, TEXT, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
LINEAGE = st.builds(
    lambda step, fields: {**fields, "step": step},
    st.sampled_from(["network", "quantize", "build", "train"]) | TEXT,
    st.dictionaries(TEXT, JSON, max_size=3),
)
MANIFESTS = st.builds(
    Manifest,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    size_bytes=st.integers(0, 2**40),
    format=st.sampled_from(["onnx", "fake"]),
    precision=st.sampled_from(["float32", "int8"]),
    input_name=TEXT,
    input_shape=st.tuples(st.none() | st.integers(1, 64), st.just(3), st.integers(1, 512), st.integers(1, 512)),
    output_name=TEXT,
    preprocessing=st.builds(
        Preprocessing,
        crop=st.integers(1, 256),
        mean=st.tuples(*[st.floats(0, 1)] * 3),
        std=st.tuples(*[st.floats(1e-4, 1)] * 3),
    ),
    labels=st.lists(TEXT, max_size=4).map(tuple),
    opset=st.none() | st.integers(1, 30),
    scheme=st.none() | TEXT,
    session_options=OPTIONS,
    recipe=st.none() | TEXT,
    lineage=st.lists(LINEAGE, max_size=3).map(read_lineage),
    versions=OPTIONS,
)


@settings(max_examples=150)
@given(manifest=MANIFESTS)
def test_a_manifest_comes_back_from_json_the_same(manifest: Manifest) -> None:
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json(), allow_nan=False))) == manifest


@pytest.mark.parametrize(("batch", "dynamic"), [(None, True), (1, False), (8, False)])
def test_the_batch_is_dynamic_where_it_has_no_number(
    make_manifest: Callable[..., Manifest], batch: int | None, dynamic: bool
) -> None:
    assert make_manifest(input_shape=(batch, 3, 4, 4)).dynamic_batch is dynamic


def test_a_saved_artifact_is_loaded_the_same(fake_artifact: Callable[..., Artifact]) -> None:
    artifact = fake_artifact(
        session_options={"session.x": "1"}, lineage=(StageRecord({"epochs": 3, "stage": "train"}),)
    )
    assert Artifact.load(artifact.path) == artifact


def test_the_manifest_stands_beside_the_file(tmp_path: Path) -> None:
    assert manifest_path(tmp_path / "m.int8.onnx") == tmp_path / "m.int8.onnx.json"


def test_wrong_sha256_is_refused_with_both_hashes(fake_artifact: Callable[..., Artifact]) -> None:
    artifact = fake_artifact()
    damaged = artifact.path.read_bytes() + b" "
    artifact.path.write_bytes(damaged)
    with pytest.raises(ArtifactError) as caught:
        Artifact.load(artifact.path)
    for part in (str(artifact.path), hashlib.sha256(damaged).hexdigest()[:12], artifact.manifest.sha256[:12]):
        assert part in str(caught.value)


@pytest.mark.parametrize("absent", ["model", "manifest"])
def test_a_missing_file_is_named(fake_artifact: Callable[..., Artifact], absent: str) -> None:
    path = fake_artifact().path
    gone = path if absent == "model" else manifest_path(path)
    gone.unlink()
    with pytest.raises(ArtifactError) as caught:
        Artifact.load(path)
    end = "" if absent == "model" else "; a model file needs its manifest beside it"
    assert str(caught.value) == f"{gone}: no such file{end}"


def test_a_folder_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a folder; give the path of a model file"):
        Artifact.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: {**content, "schema_version": 2}, "schema version 2, this version reads 1"),
        (lambda content: {**content, "colour": "BGR"}, "colour"),
        (lambda content: {**content, "labels": None}, "not a manifest"),
        (lambda content: {**content, "input_shape": 4}, "not a manifest"),
        (lambda content: {**content, "preprocessing": {**content["preprocessing"], "crop": 0}}, "crop 0"),
        (lambda content: {**content, "preprocessing": {**content["preprocessing"], "mean": None}}, "not a manifest"),
        (lambda content: [content], "not a manifest"),
        (lambda content: None, "not a manifest"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    fake_artifact: Callable[..., Artifact], change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = fake_artifact().path
    manifest = manifest_path(path)
    manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
    with pytest.raises(ArtifactError, match=message) as caught:
        Artifact.load(path)
    assert str(caught.value).startswith(f"{manifest}: ")


NEEDED = [field.name for field in fields(Manifest) if field.default is MISSING and field.default_factory is MISSING]


@pytest.mark.parametrize("field", NEEDED)
def test_a_manifest_without_a_needed_field_names_it(fake_artifact: Callable[..., Artifact], field: str) -> None:
    path = fake_artifact().path
    manifest = manifest_path(path)
    content = json.loads(manifest.read_text())
    del content[field]
    manifest.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=field):
        Artifact.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"\x00" * 9])
def test_a_manifest_that_is_no_json_is_refused(fake_artifact: Callable[..., Artifact], content: bytes) -> None:
    path = fake_artifact().path
    manifest_path(path).write_bytes(content)
    with pytest.raises(ArtifactError, match="not a manifest"):
        Artifact.load(path)


def test_a_manifest_whose_sha256_is_no_text_is_refused(fake_artifact: Callable[..., Artifact]) -> None:
    path = fake_artifact().path
    content = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**content, "sha256": None}))
    with pytest.raises(ArtifactError):
        Artifact.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "zip"),
        ("precision", "int4"),
        ("input_layout", "CHWN"),
        ("input_dtype", "float64"),
        ("input_shape", [None, 1, 4, 4]),
        ("labels", "cat"),
        ("input_shape", [None, 3, 4]),
    ],
)
def test_a_manifest_with_a_value_that_no_session_honours_is_refused(
    fake_artifact: Callable[..., Artifact], field: str, value: Any
) -> None:
    path = fake_artifact().path
    content = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**content, field: value}))
    with pytest.raises(ArtifactError):
        Artifact.load(path)


def test_an_artifact_error_is_the_users_to_mend() -> None:
    assert issubclass(ArtifactError, InputError)
    assert ArtifactError.exit_code == 2


def test_derive_describes_the_new_file(fake_artifact: Callable[..., Artifact], tmp_path: Path) -> None:
    first = StageRecord({"stage": "train"})
    source = fake_artifact(recipe="solar", lineage=(first,))
    path = tmp_path / "derived.fake"
    path.write_bytes(b"other bytes")
    record = GivenRecord("source.onnx", source.manifest.sha256)
    derived = source.derive(path, record, precision="int8", scheme="arm64")
    assert derived.path == path
    assert (derived.manifest.sha256, derived.manifest.size_bytes) == (hashlib.sha256(b"other bytes").hexdigest(), 11)
    assert (derived.manifest.precision, derived.manifest.scheme, derived.manifest.recipe) == ("int8", "arm64", "solar")
    assert derived.manifest.lineage == (first, record)
    assert source.manifest.lineage == (first,)
    assert not manifest_path(path).exists()
    assert source.derive(path).manifest.lineage == (first,)


def test_with_record_changes_nothing_but_the_lineage(fake_artifact: Callable[..., Artifact]) -> None:
    artifact, record = fake_artifact(), StageRecord({"stage": "train"})
    assert artifact.with_record(record) == Artifact(artifact.path, replace(artifact.manifest, lineage=(record,)))


@pytest.mark.parametrize("lineage", [None, "train", {"step": "train"}, ["train"], [{"stage": "train"}]])
def test_a_lineage_that_is_no_list_of_records_is_refused(
    fake_artifact: Callable[..., Artifact], lineage: object
) -> None:
    path = fake_artifact().path
    content = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**content, "lineage": lineage}))
    with pytest.raises(ArtifactError, match="lineage"):
        Artifact.load(path)


def test_one_output_is_the_second_of_two_classes(make_manifest: Callable[..., Manifest]) -> None:
    z = np.asarray([[-2.0], [0.0], [3.0]], np.float32)
    p = 1 / (1 + np.exp(-z))
    for output, values in (("logits", z), ("probabilities", p)):
        manifest = make_manifest(labels=("ok", "defective"), output=output)
        assert manifest.fits(values, 3)
        logits = manifest.logits(values)
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(shares, np.concatenate([1 - p, p], axis=1), rtol=1e-5)
    assert not make_manifest().fits(z, 3)  # of three classes
    for other in (z[:, 0], z[:, :, None, None]):  # (N,) and (N, 1, 1, 1)
        assert manifest.fits(other, 3)
        np.testing.assert_array_equal(manifest.logits(other), manifest.logits(z))
    assert not manifest.fits(z[:2], 3)
    np.testing.assert_array_equal(make_manifest(labels=("0",)).logits(z), z)  # a regression stays one column
