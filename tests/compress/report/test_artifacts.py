"""The artifact of a run that is deployed to a target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_report import UNMEASURED, measurement, publish

from compress.report.artifacts import artifact_for
from compress.report.report import Report
from runtimes.artifact import Artifact
from runtimes.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> tuple[Report, Path]:
    """A published report with its folder, which holds an artifact for each of its targets."""
    report = publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), None)
    float32 = Artifact.load(tmp_path / "run/artifacts/model-float32.onnx")
    for name in ("model-int8.onnx", "model-int8-tensorrt.onnx"):
        path = tmp_path / "run/artifacts" / name
        path.write_bytes(name.encode())
        float32.derive(path).save_manifest()
    return report, tmp_path / "run"


def test_it_is_the_last_file_of_the_first_target(run: tuple[Report, Path]) -> None:
    artifact, target = artifact_for(*run, None)
    assert (artifact.path.name, target.name) == ("model-int8.onnx", "board")


def test_targets_that_were_not_measured_have_one_too(run: tuple[Report, Path]) -> None:
    artifact, target = artifact_for(*run, "orin")
    assert (artifact.path.name, target) == ("model-int8-tensorrt.onnx", UNMEASURED.target)


def test_a_board_builds_its_engine_from_the_onnx_file(run: tuple[Report, Path]) -> None:
    report, folder = run
    engine = replace(UNMEASURED, artifact="model-int8-tensorrt-sm87.engine")
    artifact, _ = artifact_for(replace(report, unmeasured=(engine,)), folder, "orin")
    assert artifact.path.name == "model-int8-tensorrt.onnx"


def test_an_unknown_target_names_the_known_ones(run: tuple[Report, Path]) -> None:
    with pytest.raises(InputError, match="has no target 'pi'; it has board, orin"):
        artifact_for(*run, "pi")
