from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from consoles import RecordingConsole

from compress.pipeline import outputs
from compress.pipeline import run as module
from compress.pipeline.run_folder import RunFolder
from compress.process import distributed
from compress.recipe.recipe import Recipe
from compress.report import report as reports
from compress.report.report import Report
from runtimes import evalset
from runtimes.artifact import Artifact

pytestmark = pytest.mark.usefixtures("exports")
RunRecipe = Callable[..., Report | None]


@pytest.fixture
def run(make_recipe: Callable[..., Recipe], tmp_path: Path) -> RunRecipe:
    """Give a function that runs a recipe without stages in one folder."""

    def run_recipe(**sections: Any) -> Report | None:
        recipe = make_recipe(**sections)
        folder = RunFolder(tmp_path / "run", recipe.name, fresh=False)
        return module.run(recipe, folder, RecordingConsole(), lambda stage, epoch, values: None)

    return run_recipe


def test_a_run_writes_what_its_report_lists(run: RunRecipe, tmp_path: Path) -> None:
    report = run()
    assert report is not None
    assert reports.read(tmp_path / "run") == report
    assert [row.precision for row in report.rows] == ["float32", "int8"]
    files = sorted(path.name for path in (tmp_path / "run" / "artifacts").glob("*.onnx"))
    assert files == sorted(row.artifact for row in report.rows)
    assert len(evalset.load(tmp_path / "run" / "sample")) == min(module.SAMPLE_IMAGES, report.rows[0].images)
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert len(splits["test"]) == report.rows[0].images
    assert {"network", "float32", "images-test", "measure-local", "val-local"} <= report.durations_s.keys()


def test_a_later_run_reuses_every_step(run: RunRecipe) -> None:
    first, second = run(), run()
    assert first is not None
    assert second is not None
    assert replace(second, durations_s=first.durations_s) == first
    assert second.durations_s.items() <= first.durations_s.items()  # images that no step needed are not opened


def test_a_changed_recipe_leaves_no_file_of_the_one_before(run: RunRecipe, tmp_path: Path) -> None:
    run(targets=[{"name": "here"}, "raspberry-pi-5"])
    folder = tmp_path / "run" / "artifacts"
    assert len(list(folder.glob("*int8*.onnx"))) == 2
    run(quantize=None)
    assert sorted(path.name for path in folder.iterdir()) == ["model-float32.onnx", "model-float32.onnx.json"]
    assert Artifact.load(folder / "model-float32.onnx").manifest.precision == "float32"


def test_an_interrupted_run_leaves_the_results_of_the_one_before_as_they_are(
    run: RunRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    run()
    names = ("recipe.yaml", "splits.json", "report.json")
    before = [(tmp_path / "run" / name).read_bytes() for name in names]
    monkeypatch.setattr(outputs, "measure_target", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(seed=1)
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == before


def test_the_other_processes_of_torchrun_end_after_the_stages(run: RunRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run()  # the first process has done all steps
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    monkeypatch.setattr(distributed, "require_shared", lambda path: None)
    assert run() is None


def test_channels_of_a_pruned_network_are_paired_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    channels = {"baseline": {"conv_a": 16, "fc_a": 3}, "pruned": {"conv_b": 8, "fc_b": 3}}
    monkeypatch.setattr("export.layers.output_channels", lambda path: channels[path.name])
    manifest: Any = None
    baseline, pruned = (Artifact(tmp_path / name, manifest) for name in channels)
    assert module._channels(baseline, pruned) == {"conv_b": (16, 8), "fc_b": (3, 3)}
    assert module._channels(None, pruned) == {"conv_b": (8, 8), "fc_b": (3, 3)}


def test_a_gate_judges_a_pruned_network_without_quantization(run: RunRecipe) -> None:
    report = run(
        quantize=None, stages=[{"stage": "prune", "macs": 0.7, "importance": "l2"}],
        gate={"max_size_ratio": 0.95, "min_recall": {"stripes-000": 0.99}},
    )  # fmt: skip
    assert report is not None
    baseline, pruned = report.rows
    assert [row.precision for row in report.rows] == ["float32", "float32"]
    assert (baseline.verdict, pruned.artifact) == (None, "model-float32.onnx")
    assert {check.name for check in pruned.checks} == {"max_size_ratio", "min_recall.stripes-000"}
    assert report.verdict == pruned.verdict


def test_recall_is_judged_without_a_second_artifact(run: RunRecipe) -> None:
    report = run(quantize=None, stages=[], gate={"min_recall": {"stripes-000": 0.01}})
    assert report is not None
    assert [[check.name for check in row.checks] for row in report.rows] == [["min_recall.stripes-000"]]


def test_targets_that_the_gate_does_not_judge_are_named(run: RunRecipe) -> None:
    report = run(targets=[{"name": "here"}, "raspberry-pi-5"], gate={"max_size_ratio": 1})
    assert report is not None
    assert [note for note in report.notes if note.startswith("gate: ")] == [
        "gate: target 'raspberry-pi-5' is not judged, because it is not measured here"
    ]
