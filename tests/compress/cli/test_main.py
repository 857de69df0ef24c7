"""The command line: what it says, and which exit code it gives, for good input and for every kind of bad."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from compress.cli import main as cli
from compress.quantization.config import Quantize
from compress.recipe import plugins
from runtimes import environment
from runtimes.target import runtime_names

RUNTIMES = ", ".join(runtime_names())
RECIPE: dict[str, Any] = {
    "data": {"name": "imagefolder"},
    "preprocessing": {"resize": 16, "crop": 16},
    "model": {"arch": "mobilenet_v2", "width": 0.25},
    "stages": [{"stage": "train", "epochs": 1, "batch_size": 4, "warmup_epochs": 0}],
}


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.commands, [str(argument) for argument in arguments])


def make_images(folder: Path, count: int, start: int = 0) -> None:
    folder.mkdir(parents=True)
    for index in range(start, start + count):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Two classes of ten images."""
    make_images(tmp_path / "flowers" / "rose", 10)
    make_images(tmp_path / "flowers" / "tulip", 10, 10)
    return tmp_path / "flowers"


@pytest.fixture
def recipe(tmp_path: Path, flowers: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "data": {"name": "imagefolder", "root": str(flowers)}}))
    return path


def assert_one_line(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("compress: ")
    for part in parts:
        assert part in lines[0]


# What is wrong with the recipe or the data: (change, arguments, parts of the line)

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
    (["gate={max_top1_drop_pp: 1}"], ["gate: needs the section quantize, because it compares INT8 with float32"]),
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
    (["targets=[jetson-orin-nano]"], ["no target can be measured here", "target 'jetson-orin-nano': "]),
    (
        ["stages=[{stage: prune, latency: 0.5, target: jetson-orin-nano}]", "targets=[desktop-cpu, jetson-orin-nano]"],
        ["stages.0: target 'jetson-orin-nano' can't be measured here, ", "or give macs in place of latency"],
    ),
])  # fmt: skip
def test_a_target_that_has_to_be_at_hand_is_told_before_any_work(
    recipe: Path, tmp_path: Path, settings: list[str], parts: list[str]
) -> None:
    overrides = [word for setting in settings for word in ("--set", setting)]
    assert_one_line(call("run", recipe, "--out", tmp_path / "run", *overrides), 1, *parts)
    assert not (tmp_path / "run" / "steps").exists()


def test_all_problems_are_told_at_once_each_with_its_path(recipe: Path) -> None:
    result = call("validate", recipe, "--set", "stages.0.epochs=0", "--set", "model.width=-1", "--set", "gates={}")
    assert result.exit_code == 2
    assert [line.split(": ")[2] for line in result.stderr.splitlines()] == ["model.width", "stages.0.epochs", "gates"]


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    assert_one_line(call("run", tmp_path / "none.yaml"), 2, "none.yaml: no such file; see: compress list recipes")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("data: [", "not valid YAML in line 1"),
        ("- a", "must be a mapping"),
        ("seed: 1\nseed: 2", "line 2: duplicate key 'seed'"),
        ("a: &x [1]\nb: *x", "aliases (*name) are not allowed"),
        ("a: !!python/object:os.system x", "not valid YAML in line 1"),
    ],
)
def test_yaml_that_hides_mistakes_is_one_line(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert_one_line(call("validate", tmp_path / "r.yaml"), 2, part)


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
    from compress.pipeline import run_folder

    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(run_folder, "write_json", full)
    result = call("run", recipe, "--out", tmp_path / "run")
    assert_one_line(result, 1, "No space left on device; free space or choose another folder with --out")


def test_a_target_of_another_architecture_is_refused_before_any_work(recipe: Path, tmp_path: Path) -> None:
    other = "x86-avx2" if "arm64" in call("doctor").output.split("instruction set")[1][:40] else "arm64"
    result = call("run", recipe, "--out", tmp_path / "run", "--set", f"targets=[{{name: b, instruction_set: {other}}}]")
    assert_one_line(result, 1, f"target 'b': it is {other}, this machine is", "run the recipe there")


# Commands that answer


@pytest.mark.parametrize("kind", ["models", "data", "stages", "runtimes", "recipes", "targets"])
def test_list_names_everything_with_a_line_about_it(kind: str) -> None:
    result = call("list", kind)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    if kind in ("models", "data", "stages"):
        assert [line.split()[0] for line in lines] == plugins.names(kind)  # type: ignore[arg-type]


def test_schema_is_json_schema_that_knows_every_plugin() -> None:
    schema = json.loads(call("schema").output)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]["model"]["discriminator"]["mapping"]) == set(plugins.names("models"))


def test_doctor_says_what_there_is_and_what_is_missing() -> None:
    result = call("doctor")
    assert result.exit_code == 0
    for subject in ("python", "processor", "instruction set", "onnxruntime", "tensorrt", "GPU"):
        assert any(line.startswith(subject) for line in result.output.splitlines())


def test_measure_needs_a_manifest_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert_one_line(call("measure", tmp_path / "m.onnx"), 2, "m.onnx.json: no such file")


def test_measure_of_an_unknown_runtime_names_those_there_are(tmp_path: Path) -> None:
    result = call("measure", tmp_path / "m.onnx", "--runtime", "tflite")
    assert_one_line(result, 2, "--runtime", f"must have a runtime of {RUNTIMES}, not 'tflite'")


def test_report_of_a_folder_without_one_is_one_line(tmp_path: Path) -> None:
    assert_one_line(call("report", tmp_path), 2, "report.json: no such file; finish the run with: compress run")


@pytest.mark.parametrize("command", [entry[1] for entry in cli.COMMANDS])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"Example: compress {command}" in " ".join(result.output.split())


@pytest.mark.parametrize(("module", "name", "line"), cli.COMMANDS)
def test_the_list_of_commands_shows_the_first_line_of_each_help(module: str, name: str, line: str) -> None:
    command = cli.LazyCommand(module, name, line).load()
    assert command.help is not None
    assert command.help.splitlines()[0] == line


def test_a_typo_in_a_command_gets_a_suggestion() -> None:
    result = call("valdiate")
    assert result.exit_code == 2
    assert "Did you mean" in result.stderr
    assert "'validate'" in result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom compress.cli.main import commands\n"
        "commands(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'numpy', 'onnxruntime', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("runtime", "code", "message"), [
    ("litert", 2, "convert its ONNX file with python -m export.to_litert"), ("ov", 1, "pip install openvino"),
])  # fmt: skip
def test_a_runtime_that_is_missing_or_runs_other_files_is_told_before_any_work(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, code: int, message: str
) -> None:
    monkeypatch.setattr(environment, "package_versions", lambda names=(): {})
    result = call("run", recipe, "--out", tmp_path / "run", "--set", f"targets=[{{name: b, runtime: {runtime}}}]")
    assert_one_line(result, code, "target 'b'", message)


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", "/dev/zero"),
        ("quantize", "/dev/zero", "--calibration", "photos", "-o", "int8.onnx"),
        ("compare", "/dev/zero", "/dev/zero"),
        ("deploy", "/dev/zero", "me@board"),
        ("measure", "/dev/zero"),
        ("data", "check", "/dev/zero"),
    ],
)
def test_a_device_that_never_ends_is_answered(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "photos", 4)
    monkeypatch.chdir(tmp_path)
    assert_one_line(call(*arguments), 2, "/dev/zero")


def test_a_renamed_key_is_one_line_of_warning(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quantize, "RENAMED", {"images": "calibration_images"})
    result = call("validate", recipe, "--set", "quantize.images=8")
    assert result.exit_code == 0
    assert result.stderr == (
        "compress: warning: quantize: 'images' is now called 'calibration_images'; "
        "the next version no longer accepts 'images'\n"
    )
