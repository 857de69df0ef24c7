"""`compress.measure`: files, targets and what it returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from image_networks import network

import compress
from compress.api.measure import Measurements
from runtimes.errors import InputError, UnavailableError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(network(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_a_plain_file_is_measured_in_silence(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = compress.measure(str(model), blocks=2, quiet=True)
    assert isinstance(measured, Measurements)
    (measurement,) = measured
    assert measurement.target.name == "local"
    assert capsys.readouterr() == ("", "")
    assert json.loads(json.dumps(measured.to_json()))[0]["artifact"] == "model.onnx"
    assert len(measured.table().rows) == 1
    assert repr(measured).splitlines()[0].split() == [
        "artifact",
        "top-1",
        "%",
        "MB",
        "p50",
        "ms",
        "p90",
        "p99",
        "images/s",
    ]
    assert repr(measured).splitlines()[1].startswith("model.onnx")


def test_files_are_any_iterable_on_a_target_by_name(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = compress.measure(model.parent.glob("*.onnx"), "desktop-cpu", blocks=2)
    assert [measurement.target.name for measurement in measured] == ["desktop-cpu"]
    shown = capsys.readouterr()
    assert "model.onnx: no manifest beside it" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(("files", "settings", "message"), [
    (["none.onnx"], {}, "none.onnx: no such file"),
    ([], {}, "there is no artifact to measure"),
    (3, {}, "files: must be artifacts or paths of model files, not int"),
    (["a.onnx", None], {}, "files: must be artifacts or paths of model files, not NoneType"),
    (["a.onnx"], {"blocks": 1}, "blocks: must be a whole number from 2 to 10000, not 1"),
    (["a.onnx"], {"preprocessing": {"side": 3}}, "preprocessing.side: unknown key"),
])  # fmt: skip
def test_wrong_arguments_are_one_line(files: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        compress.measure(files, **settings)
    assert str(error.value).startswith(message)


def test_a_target_that_is_not_here_is_refused(model: Path) -> None:
    with pytest.raises(UnavailableError, match="target 'jetson-orin-nano' can't be measured on this machine"):
        compress.measure(model, "jetson-orin-nano")
