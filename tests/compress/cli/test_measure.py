"""The commands that measure files, with fake artifacts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest
from click.testing import CliRunner
from command_line import assert_one_line
from command_line import call as call_cli
from PIL import Image

from compress.cli.main import commands
from runtimes import clock
from runtimes.artifact import Artifact, Manifest
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import runtime_names

CLASSES = ("ant", "bee", "cat", "dog", "emu")
SMALL = ("--resize", "10", "--crop", "8", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")

FakeMaker = Callable[..., Artifact]


@pytest.fixture
def fake_artifact(tmp_path: Path) -> FakeMaker:
    """Give a function that writes a fake artifact of that name and latency."""

    def make(name: str, latency_ms: float = 0.0) -> Artifact:
        path = tmp_path / name
        path.write_text(json.dumps({"latency_ms": latency_ms, "logits": [[1, 0]]}))
        manifest = Manifest(
            sha256_file(path), path.stat().st_size, "fake", "float32", "images", (None, 3, 4, 4), "logits",
            Preprocessing(4, 4), ("cat", "dog"),
        )  # fmt: skip
        artifact = Artifact(path, manifest)
        artifact.save_manifest()
        return artifact

    return make


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "STREAM_QUERIES", 30)
    monkeypatch.setattr(clock, "STREAM_S", 0.1)


def call(*arguments: object) -> str:
    done = CliRunner().invoke(commands, ["measure", *map(str, arguments), "--runtime", "fake"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_measure_tells_the_conditions_with_the_figures(fake_artifact: FakeMaker) -> None:
    printed = call(fake_artifact("a.fake", latency_ms=1).path, "--blocks", 2)
    assert "p50 ms" in printed
    assert "a.fake: 6 timed runs, " in printed
    assert "warm-up runs before" in printed


@pytest.mark.usefixtures("_quick")
def test_mlperf_tells_queries_seconds_and_percentiles(fake_artifact: FakeMaker) -> None:
    paths = [fake_artifact(name, latency_ms=latency_ms).path for name, latency_ms in (("a.fake", 5), ("b.fake", 1))]
    lines = call(*paths, "--mlperf").splitlines()
    assert any("MLPerf single stream" in line for line in lines)
    slow, fast = (next(line.split() for line in lines if line.split()[:1] == [path.name]) for path in paths)
    assert int(slow[1]) >= 30
    assert float(slow[3]) > float(fast[3]) > 1


@pytest.mark.usefixtures("_quick")
def test_mlperf_as_json(fake_artifact: FakeMaker) -> None:
    (stream,) = json.loads(call(fake_artifact("a.fake", latency_ms=1).path, "--mlperf", "--json"))
    assert stream["artifact"] == "a.fake"
    assert stream["queries"] >= 30
    assert stream["duration_s"] >= 0.1
    assert stream["latency_ms_p50"] <= stream["latency_ms_p90"] <= stream["latency_ms_p99"]


@pytest.mark.usefixtures("_quick")
def test_a_single_stream_is_of_single_images(fake_artifact: FakeMaker) -> None:
    arguments: list[Path | str] = [fake_artifact("a.fake").path, "--mlperf", "--batch", "4", "--runtime", "fake"]
    done = CliRunner().invoke(commands, ["measure", *map(str, arguments)])
    assert done.exit_code == 2
    assert "a single stream sends one image at a time" in done.output


def test_measure_needs_a_manifest_beside_a_file_that_is_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    assert_one_line(call_cli("measure", tmp_path / "m.tflite"), 2, "m.tflite.json: no such file")
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert_one_line(call_cli("measure", tmp_path / "m.onnx"), 2, "m.onnx: not an ONNX file")


def test_measure_of_an_unknown_runtime_names_those_there_are(tmp_path: Path) -> None:
    result = call_cli("measure", tmp_path / "m.onnx", "--runtime", "tflite")
    assert_one_line(result, 2, "--runtime", f"must have a runtime of {', '.join(runtime_names())}, not 'tflite'")


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """Return a folder with a float32 file, its INT8 file by `compress quantize`, images and class names."""
    onnx.save(onnx_graphs.residual_model(channels=3), tmp_path / "float32.onnx")
    for name in CLASSES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(8):
            pixels = np.random.default_rng(index + 10 * len(name)).integers(0, 256, (12, 10, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    quantized = call_cli("quantize", tmp_path / "float32.onnx", "--calibration", tmp_path / "photos", *SMALL,
                         "-o", tmp_path / "int8.onnx", "--target", "generic")  # fmt: skip
    assert quantized.exit_code == 0, quantized.output
    return tmp_path


def test_a_float32_original_is_compared_with_our_int8_file(compared: Path) -> None:
    result = call_cli("evaluate", compared / "float32.onnx", compared / "int8.onnx", "--data",
                      f"imagefolder:{compared / 'photos'}", "--labels", compared / "classes.txt")  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.split()}
    assert {"float32", "int8"} <= rows.keys()
    assert float(rows["int8"][-1]) >= 50
    assert "float32.onnx: no manifest beside it; preprocessing of int8.onnx: resize 10, crop 8" in result.stderr


@pytest.mark.parametrize("source", ["options", "manifest"])
def test_two_plain_files_are_evaluated(compared: Path, source: str) -> None:
    manifest = (compared / "int8.onnx.json").rename(compared / "kept.json")
    options = SMALL if source == "options" else ("--manifest", manifest)
    result = call_cli("evaluate", compared / "float32.onnx", compared / "int8.onnx", "--json", "--data",
                      f"imagefolder:{compared / 'photos'}", "--labels", compared / "classes.txt", *options)  # fmt: skip
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.stdout)
    assert first["agreement"] is None
    assert second["agreement"] >= 0.5
    assert [row["class"] for row in first["per_class"]] == list(CLASSES)


def test_numbered_classes_of_named_images_name_the_cure(compared: Path) -> None:
    result = call_cli("evaluate", compared / "float32.onnx", compared / "int8.onnx", "--data",
                      f"imagefolder:{compared / 'photos'}")  # fmt: skip
    assert_one_line(result, 2, "does not know the class 'ant'", "name its outputs, in their order, with --labels FILE")


def test_plain_files_are_measured_without_options(compared: Path) -> None:
    result = call_cli("measure", compared / "float32.onnx", compared / "int8.onnx", "--blocks", "2")
    assert result.exit_code == 0, result.output
    assert "float32.onnx: no manifest beside it; measured with images of 8 x 8 pixels" in result.stderr


def test_an_unknown_preprocessing_is_refused(compared: Path) -> None:
    result = call_cli("evaluate", compared / "float32.onnx", "--data", f"imagefolder:{compared / 'photos'}")
    assert_one_line(result, 2, "so its preprocessing is unknown; give --manifest FILE.json")
