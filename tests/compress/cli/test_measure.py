"""The commands that measure files, with fake artifacts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import assert_one_line
from command_line import call as call_cli

from compress.cli.main import commands
from runtimes import clock
from runtimes.artifact import Artifact, Manifest
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import runtime_names

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


def test_measure_needs_a_manifest_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert_one_line(call_cli("measure", tmp_path / "m.onnx"), 2, "m.onnx.json: no such file")


def test_measure_of_an_unknown_runtime_names_those_there_are(tmp_path: Path) -> None:
    result = call_cli("measure", tmp_path / "m.onnx", "--runtime", "tflite")
    assert_one_line(result, 2, "--runtime", f"must have a runtime of {', '.join(runtime_names())}, not 'tflite'")
