"""The command run: one line and an exit code for every kind of bad input, before any work."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_one_line, call, make_images
from made_report import GATE, measurement, publish

from compress.api import run as api
from compress.pipeline import run_folder
from compress.report.report import Report
from runtimes import environment
from runtimes.target import runtime_names

RUNTIMES = ", ".join(runtime_names())


# (settings, parts of the line)
BAD_SETTINGS = [
    (["data.nane=elpv"], ["data.nane: unknown key; did you mean 'name'?"]),
    (["stages.0.epochs=many"], ["stages.0.epochs: must be a valid integer", 'not "many"']),
    (["stages.0.lr=-1"], ["stages.0.lr: must be greater than 0, not -1"]),
    (["stages.0.lr=.nan"], ["stages.0.lr: must be a finite number"]),
    (["model.arch=mobilenet"], ["model.arch: there is no 'mobilenet'; did you mean 'mobilenet_v"]),
    (["data.name=cifar"], ["data.name: there is no 'cifar'; choose from elpv, imagefolder, imagenet, synthetic"]),
    (["stages.0.stage=tarin"], ["stages.0.stage: there is no 'tarin'; did you mean 'train'?"]),
    (["targets=[{name: a, runtime: tflite}]"], [f"targets.0: must have a runtime of {RUNTIMES}, not 'tflite'"]),
    (["export.opset=9"], ["export.opset: must be greater than or equal to 18, not 9"]),
    (["gate={max_drop_pp: 1}"], ["gate: target 'local' has one artifact only, so there is nothing to compare; add "]),
    (["stages.1.epochs=3"], ["--set stages.1.epochs=3: '1' must be an index from 0 to 0"]),
    (["data.root=/no/such/folder"], ["/no/such/folder: no such folder"]),
    (["model.weights=missing.safetensors"], ["weights: missing.safetensors: no such file"]),
    (["model.weights=IMAGENET1K_V9"], ["weights: 'IMAGENET1K_V9'", "give the path of a .safetensors or .pth file"]),
    (["model.weights=package:no_such_package"], ["package 'no_such_package' is not installed"]),
]


@pytest.mark.parametrize(("settings", "parts"), BAD_SETTINGS, ids=lambda value: str(value[0])[:40])
def test_a_bad_setting_is_one_line_and_exit_code_2(
    recipe: Path, tmp_path: Path, settings: list[str], parts: list[str]
) -> None:
    overrides = [word for setting in settings for word in ("--set", setting)]
    result = call("run", recipe, "--out", tmp_path / "run", *overrides)
    assert_one_line(result, 1 if "package:" in settings[0] else 2, *parts)
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize(("settings", "parts"), [
    (["targets=[jetson-orin-nano]"], ["no target can be measured on this machine", "target 'jetson-orin-nano': "]),
    (
        ["stages=[{stage: prune, latency: 0.5, target: jetson-orin-nano}]", "targets=[desktop-cpu, jetson-orin-nano]"],
        ["stages.0: target 'jetson-orin-nano' can't be measured here, ", "or give macs instead of latency"],
    ),
])  # fmt: skip
def test_a_target_that_cannot_be_measured_here_is_an_error_before_any_work(
    recipe: Path, tmp_path: Path, settings: list[str], parts: list[str]
) -> None:
    overrides = [word for setting in settings for word in ("--set", setting)]
    assert_one_line(call("run", recipe, "--out", tmp_path / "run", *overrides), 1, *parts)
    assert not (tmp_path / "run" / "steps").exists()


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    assert_one_line(call("run", tmp_path / "none.yaml"), 2, "none.yaml: no such file; see: compress list recipes")


def test_an_empty_class_is_named(recipe: Path, flowers: Path, tmp_path: Path) -> None:
    (flowers / "daisy").mkdir()
    assert_one_line(call("run", recipe, "--out", tmp_path / "run"), 2, "daisy", "class 'daisy' has no images")


def test_a_class_with_fewer_images_than_splits_is_named(recipe: Path, flowers: Path, tmp_path: Path) -> None:
    make_images(flowers / "daisy", 2, 20)
    result = call("run", recipe, "--out", tmp_path / "run")
    assert_one_line(result, 2, "class 'daisy' has 2 images, fewer than the 3 splits")


def test_too_many_unreadable_images_stop_the_run_before_it_trains(recipe: Path, flowers: Path, tmp_path: Path) -> None:
    (flowers / "rose" / "3.png").write_bytes(b"not an image")
    result = call("run", recipe, "--out", tmp_path / "run")
    assert_one_line(result, 2, "1 of 20 images can't be read", "max_unreadable_images: 0.01", "3.png")
    assert not list((tmp_path / "run" / "steps").glob("network*"))


def test_a_folder_of_another_recipe_is_refused_and_left_alone(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text('{"schema_version": 1, "recipe": "other"}')
    result = call("run", recipe, "--out", out, "--fresh")
    assert_one_line(result, 2, "belongs to the recipe 'other', not to 'recipe'; choose another with --out")
    assert [path.name for path in out.iterdir()] == ["run.json"]


def test_a_folder_that_is_no_run_folder_is_refused_and_left_alone(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert_one_line(call("run", recipe, "--out", out, "--fresh"), 2, "is not empty and no run folder")
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(run_folder, "write_json", full)
    result = call("run", recipe, "--out", tmp_path / "run")
    assert_one_line(result, 1, "No space left on device; free space or choose another folder with --out")


def test_a_target_of_another_architecture_is_refused_before_any_work(recipe: Path, tmp_path: Path) -> None:
    other = "x86-avx2" if "arm64" in call("doctor").output.split("instruction set")[1][:40] else "arm64"
    result = call("run", recipe, "--out", tmp_path / "run", "--set", f"targets=[{{name: b, instruction_set: {other}}}]")
    assert_one_line(result, 1, f"target 'b': it has the instruction set {other}, this machine", "add one that can")


@pytest.mark.parametrize(("runtime", "code", "message"), [
    ("litert", 2, "convert its ONNX file with python -m export.to_litert"), ("ov", 1, "pip install openvino"),
])  # fmt: skip
def test_a_runtime_that_is_missing_or_runs_other_files_is_an_error_before_any_work(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, code: int, message: str
) -> None:
    monkeypatch.setattr(environment, "package_versions", lambda names=(): {})
    result = call("run", recipe, "--out", tmp_path / "run", "--set", f"targets=[{{name: b, runtime: {runtime}}}]")
    assert_one_line(result, code, "target 'b'", message)


@pytest.mark.parametrize(
    ("wrong", "gate", "verdict", "code"),
    [(40, GATE, "pass", 0), (80, GATE, "regression", 3), (44, GATE, "inconclusive", 4), (40, None, "none", 0)],
)
def test_the_exit_code_is_the_verdict(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int, gate: Any, verdict: str, code: int
) -> None:
    def run(*arguments: object) -> Report:
        return publish(tmp_path, measurement("int8", wrong, 1.0, 2_000_000), gate)

    monkeypatch.setattr(api.pipeline, "run", run)
    result = call("run", recipe, "--out", tmp_path / "run")
    assert result.exit_code == code
    assert f"verdict: {verdict}" in result.stdout
    assert f"report: {tmp_path / 'run' / 'report.html'}" in result.stdout.splitlines()


def test_other_processes_print_nothing(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.pipeline, "run", lambda *arguments: None)
    result = call("run", recipe, "--out", tmp_path / "run")
    assert (result.exit_code, result.output) == (0, "")


def test_a_missing_tracker_is_an_error_before_any_work(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = call("run", recipe, "--out", tmp_path / "run", "--set", "tracking=[mlflow]")
    assert_one_line(result, 1, "tracking: mlflow needs its package: pip install 'compress-classifiers[track]'")


def test_a_dry_run_lists_the_steps_and_writes_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.pipeline.duration.time_per_image_s", lambda *_: 0.01)
    before = sorted(tmp_path.rglob("*"))
    for options in ((), ("--fresh",), ("--cache", tmp_path / "cache")):
        result = call("run", recipe, "--out", tmp_path / "run", "--dry-run", *options)
        assert result.exit_code == 0, result.output
        assert "0-train" in result.stdout
        assert "estimate: about" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_finds_the_mistakes_of_a_run(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    dry_run = ("run", recipe, "--dry-run", "--out")
    assert_one_line(call(*dry_run, tmp_path / "other"), 2, "is not empty and no run folder")
    assert_one_line(call(*dry_run, tmp_path / "run", "--set", "model.weights=missing.pth"), 2, "no such file")
