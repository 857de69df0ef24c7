"""Tests of opening files with and without a manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest

from compress.model_files import Assumptions, OpenedFiles, open_files, read_labels
from compress.plain_onnx import PlainFile
from export.inputs.options import PreprocessingOptions
from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, InputError
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

OURS = Preprocessing(9, 8, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
OPTIONS = PreprocessingOptions.of(OURS)
CLASSES = ("ant", "bee", "cat", "dog", "emu")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Write a model without a manifest."""
    onnx.save(onnx_graphs.residual_model(channels=3), tmp_path / "plain.onnx")
    return tmp_path / "plain.onnx"


def with_manifest(path: Path, labels: tuple[str, ...] = CLASSES, preprocessing: Preprocessing = OURS) -> Path:
    """Write another model of the same form with its manifest."""
    model = onnx_graphs.residual_model(channels=3)
    model.doc_string = path.name
    onnx.save(model, path)
    artifact = PlainFile.read(path).artifact(preprocessing)
    replace(artifact, manifest=replace(artifact.manifest, labels=labels)).save_manifest()
    return path


def opened(*paths: Path, needs_pixels: bool = True, evalset: EvalSet | None = None, **assumed: object) -> OpenedFiles:
    return open_files(paths, Assumptions(**assumed), evalset, needs_pixels)  # type: ignore[arg-type]


def refused(*paths: Path, needs_pixels: bool = True, **assumed: object) -> str:
    with pytest.raises(InputError) as caught:
        opened(*paths, needs_pixels=needs_pixels, **assumed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines(path: Path, *names: str) -> Path:
    path.write_text("\n".join(names) + "\n", encoding="utf-8")
    return path


def test_files_with_manifests_are_as_before(tmp_path: Path) -> None:
    ours = with_manifest(tmp_path / "int8.onnx")
    assert opened(ours, ours) == OpenedFiles([Artifact.load(ours)] * 2, [])


def test_the_preprocessing_of_options_is_used_and_noted(plain: Path) -> None:
    (artifact,), (note,) = (result := opened(plain, preprocessing=OPTIONS)).artifacts, result.notes
    assert artifact.manifest.preprocessing == OURS
    assert note == (
        "plain.onnx: no manifest beside it; preprocessing of the options: resize 9, crop 8, bicubic, mean 0.5,0.5,0.5, "
        "std 0.25,0.25,0.25"
    )


def test_a_manifest_by_path_gives_preprocessing_and_classes(plain: Path, tmp_path: Path) -> None:
    ours = with_manifest(tmp_path / "int8.onnx")
    (tmp_path / "elsewhere.json").write_bytes((tmp_path / "int8.onnx.json").read_bytes())
    result = opened(plain, manifest=tmp_path / "elsewhere.json")
    assert (result.artifacts[0].manifest.preprocessing, result.artifacts[0].manifest.labels) == (OURS, CLASSES)
    assert result.artifacts[0].manifest.sha256 != Artifact.load(ours).manifest.sha256
    assert "preprocessing of " in result.notes[0]


def test_a_file_whose_own_manifest_lies_elsewhere_has_all_of_it(tmp_path: Path) -> None:
    ours = with_manifest(tmp_path / "int8.onnx")
    manifest = Artifact.load(ours).manifest
    (tmp_path / "int8.onnx.json").rename(tmp_path / "kept.json")
    result = opened(ours, manifest=tmp_path / "kept.json")
    assert result.artifacts[0].manifest == manifest
    assert result.notes[0].endswith("kept.json is its own")


def test_the_other_file_of_the_command_gives_preprocessing_and_classes(plain: Path, tmp_path: Path) -> None:
    ours = with_manifest(tmp_path / "int8.onnx")
    result = opened(plain, ours)
    assert [artifact.path for artifact in result.artifacts] == [plain, ours]
    assert {artifact.manifest.preprocessing for artifact in result.artifacts} == {OURS}
    assert {artifact.manifest.labels for artifact in result.artifacts} == {CLASSES}
    assert result.notes == [
        "plain.onnx: no manifest beside it; preprocessing of int8.onnx: resize 9, crop 8, bicubic, mean 0.5,0.5,0.5, "
        "std 0.25,0.25,0.25; classes of int8.onnx"
    ]


def test_labels_name_numbered_classes_of_all_files(plain: Path, tmp_path: Path) -> None:
    numbered = with_manifest(tmp_path / "int8.onnx", ("0", "1", "2", "3", "4"))
    result = opened(plain, numbered, labels=lines(tmp_path / "classes.txt", *CLASSES))
    assert {artifact.manifest.labels for artifact in result.artifacts} == {CLASSES}


def test_labels_that_contradict_are_refused(plain: Path, tmp_path: Path) -> None:
    ours = with_manifest(tmp_path / "int8.onnx")
    labels = lines(tmp_path / "classes.txt", "ant", "bee", "cow", "dog", "emu")
    assert refused(plain, ours, labels=labels) == (
        f"int8.onnx: its manifest has other classes than {labels}: 'cat' is 'cow' there"
    )
    short = lines(tmp_path / "short.txt", "ant", "bee")
    assert refused(plain, preprocessing=OPTIONS, labels=short) == f"plain.onnx: has 5 classes, {short} names 2"
    few = with_manifest(tmp_path / "few.onnx", CLASSES[:4])
    message = refused(plain, manifest=tmp_path / "few.onnx.json")
    assert message == f"plain.onnx: has 5 classes, {few}.json names 4"


def test_two_names_fit_a_file_with_one_output(tmp_path: Path) -> None:
    onnx.save(onnx_graphs.binary_model(sigmoid=False), tmp_path / "binary.onnx")
    labels = lines(tmp_path / "classes.txt", "good", "bad")
    result = opened(tmp_path / "binary.onnx", preprocessing=OPTIONS, labels=labels)
    assert result.artifacts[0].manifest.labels == ("good", "bad")
    assert result.notes[0].endswith("; its one output is read as the logit of the second of two classes")
    onnx.save(onnx_graphs.binary_model(sigmoid=True), tmp_path / "binary.onnx")
    result = opened(tmp_path / "binary.onnx", preprocessing=OPTIONS, labels=labels)
    assert result.notes[0].endswith("; its one output is read as the probability of the second of two classes")


def test_an_unknown_preprocessing_is_refused_with_its_cure(plain: Path) -> None:
    message = refused(plain)
    assert message.startswith(f"{plain}: has no manifest beside it, so its preprocessing is unknown; give --manifest")
    assert "--resize 9 --crop 8 --mean 0.485,0.456,0.406" in message


def test_latency_needs_the_size_only(plain: Path, tmp_path: Path) -> None:
    result = opened(plain, needs_pixels=False)
    assert result.artifacts[0].manifest.preprocessing.crop == 8
    assert result.notes == ["plain.onnx: no manifest beside it; measured with images of 8 x 8 pixels"]
    model = onnx_graphs.residual_model(channels=3)
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "side"
    onnx.save(model, tmp_path / "open.onnx")
    message = refused(tmp_path / "open.onnx", needs_pixels=False)
    assert "takes images of any size; give the size to measure with, as in --crop 224 or, of height" in message
    result = opened(tmp_path / "open.onnx", needs_pixels=False, preprocessing=PreprocessingOptions(16, 16))
    assert result.artifacts[0].manifest.input_shape == (None, 3, 16, 16)


def test_different_preprocessing_of_others_is_ambiguous(plain: Path, tmp_path: Path) -> None:
    one = with_manifest(tmp_path / "one.onnx")
    other = with_manifest(tmp_path / "other.onnx", preprocessing=Preprocessing(8, 8))
    assert refused(plain, one, other).endswith(
        f"one.onnx and other.onnx have different preprocessing; choose with --manifest {one}.json"
    )
    assert opened(one, other).notes == [
        "other.onnx: other preprocessing than one.onnx: resize 8, crop 8, bilinear, mean 0.485,0.456,0.406, std "
        "0.229,0.224,0.225 instead of resize 9, crop 8, bicubic, mean 0.5,0.5,0.5, std 0.25,0.25,0.25"
    ]
    assert opened(one, other, needs_pixels=False).notes == []


def test_options_without_a_use_are_refused(plain: Path, tmp_path: Path) -> None:
    ours = with_manifest(tmp_path / "int8.onnx")
    manifest = tmp_path / "int8.onnx.json"
    assert "every file has its own manifest" in refused(ours, preprocessing=OPTIONS)
    assert "every file has its own manifest" in refused(ours, manifest=manifest)
    assert "--manifest names a preprocessing already" in refused(plain, preprocessing=OPTIONS, manifest=manifest)


def test_a_manifest_that_is_none_is_refused(plain: Path, tmp_path: Path) -> None:
    assert "no such file; give the path of a manifest, as in int8.onnx.json" in refused(plain, manifest=tmp_path / "x")
    assert "not a manifest" in refused(plain, manifest=plain)


def test_an_evaluation_set_gives_the_preprocessing_but_not_the_order_of_classes(plain: Path, tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    evalset = EvalSet(images, (0, 1), ("a", "b"), CLASSES, OURS, "0" * 64)
    with pytest.raises(
        InputError, match=r"its classes are not those of the evaluation set; name its outputs, in their"
    ):
        opened(plain, evalset=evalset)
    result = opened(plain, evalset=evalset, labels=lines(tmp_path / "classes.txt", *CLASSES))
    assert result.artifacts[0].manifest.preprocessing == OURS


def test_other_formats_need_their_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"a\.tflite\.json: no such file"):
        opened(tmp_path / "a.tflite", preprocessing=OPTIONS)
    with pytest.raises(ArtifactError, match=r"none\.onnx: no such file"):
        opened(tmp_path / "none.onnx")


def test_labels_are_read_by_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffCafé\r\n two words \r\n\r\n".encode())
    assert read_labels(path) == ("Café", "two words")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "line 2 is empty"),
        (b"a\nb\na\n", "'a' is listed twice"),
        (b"\xff\xfe\x00", "not a text in UTF-8"),
        (None, "No such file or directory"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"--labels .*classes.txt: {message}"):
        read_labels(path)
