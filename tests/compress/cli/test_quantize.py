"""The options of `compress quantize`, with a stand-in for the quantization."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compress.api import quantize as api
from compress.cli import main as cli
from compress.cli import quantize as command
from compress.quantization.onnx_file import FileRequest
from export.inputs.options import PreprocessingOptions
from runtimes.artifact import Manifest
from runtimes.files import write_json
from runtimes.preprocessing import Preprocessing

SIDES = ("--resize", "64", "--crop", "56")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[FileRequest]:
    """Return a list that collects the requests of the command in place of running them."""
    collected: list[FileRequest] = []

    def collect(request: FileRequest, console: object, cache: Path) -> None:
        collected.append(request)

    monkeypatch.setattr(api, "quantize_file", collect)
    monkeypatch.setattr(command, "_print_quantization", lambda artifact: None)
    return collected


def call(*options: str) -> Result:
    arguments = ["quantize", "model.onnx", "--calibration", "photos", "-o", "int8.onnx", *SIDES, *options]
    return CliRunner().invoke(cli.commands, arguments)


@pytest.mark.parametrize(("options", "method", "range_method"), [
    ((), "compress", "min-max"),
    (("--method", "nncf"), "nncf", "min-max"),
    (("--range-method", "mse"), "compress", "mse"),
    (("--method", "nncf", "--range-method", "entropy"), "nncf", "entropy"),
])  # fmt: skip
def test_the_methods_are_those_of_the_options(
    options: tuple[str, ...], method: str, range_method: str, requests: list[FileRequest]
) -> None:
    result = call(*options)
    assert (result.exit_code, result.stderr) == (0, "")
    (request,) = requests
    assert (request.settings.method, request.settings.calibration.method) == (method, range_method)


@pytest.mark.parametrize(("options", "method", "range_method", "old", "new"), [
    (("--engine", "nncf"), "nncf", "min-max", "--engine", "--method"),
    (("--method", "percentile"), "compress", "percentile", "--method percentile", "--range-method percentile"),
])  # fmt: skip
def test_old_options_work_with_one_line_of_warning(
    options: tuple[str, ...], method: str, range_method: str, old: str, new: str, requests: list[FileRequest]
) -> None:
    result = call(*options)
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        f"compress: warning: '{old}' is now called '{new}'; the next version no longer accepts '{old}'\n"
    )
    (request,) = requests
    assert (request.settings.method, request.settings.calibration.method) == (method, range_method)


@pytest.mark.parametrize(("options", "message"), [
    (("--images", "9", "--min-agreement", "1"), "min_agreement: 9 calibration images are too few to hold some out"),
    (("--images", "9", "--min-sqnr-db", "30"), "min_sqnr_db: 9 calibration images are too few to hold some out"),
    (("--method", "nncf", "--min-agreement", "1"), "min_agreement: the method nncf has no accuracy budget"),
])  # fmt: skip
def test_a_budget_that_could_not_fail_is_one_line(
    options: tuple[str, ...], message: str, requests: list[FileRequest]
) -> None:
    result = call(*options)
    assert (result.exit_code, requests) == (2, [])
    assert result.stderr.startswith(f"compress: {message}")
    assert result.stderr.count("\n") == 1


def test_both_old_options_work_together(requests: list[FileRequest]) -> None:
    result = call("--engine", "nncf", "--method", "mse")
    assert result.exit_code == 0, result.output
    (request,) = requests
    assert (request.settings.method, request.settings.calibration.method) == ("nncf", "mse")


@pytest.mark.parametrize("options", [
    ("--engine", "nncf", "--method", "compress"), ("--method", "mse", "--range-method", "entropy"),
])  # fmt: skip
def test_an_old_option_beside_its_new_one_is_refused(options: tuple[str, ...], requests: list[FileRequest]) -> None:
    result = call(*options)
    assert result.exit_code == 2
    assert "is the old name of" in result.stderr
    assert not requests


def test_old_options_are_hidden_in_the_help() -> None:
    text = CliRunner().invoke(cli.commands, ["quantize", "--help"]).output
    assert "--engine" not in text
    assert "--range-method" in text


def test_a_manifest_beside_the_model_gives_the_preprocessing(
    requests: list[FileRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Preprocessing(64, 56, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    manifest = Manifest("0" * 64, 1, "onnx", "float32", "in", (None, 3, 56, 56), "out", own, ("a", "b"))
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "model.onnx.json", manifest.to_json())
    arguments = ["quantize", "model.onnx", "--calibration", "photos", "-o", "int8.onnx"]
    result = CliRunner().invoke(cli.commands, arguments)
    assert result.exit_code == 0, result.output
    assert requests[0].preprocessing == PreprocessingOptions.of(own)
    assert "preprocessing of model.onnx.json: resize 64, crop 56, bilinear, mean 0.5,0.5,0.5" in result.stderr
    same = CliRunner().invoke(cli.commands, [*arguments, *SIDES, "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"])
    assert same.exit_code == 0, same.output
    assert call().exit_code == 0
    refused = call("--mean", "0.4")
    assert refused.exit_code == 2
    assert "model.onnx.json: names another preprocessing than the options: resize 64, crop 56" in refused.stderr
