"""`compress.quantize`: modules and ONNX files, images of all kinds, and arguments that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from image_networks import network
from networks import Chain, make_lively
from PIL import Image
from torch import nn

import compress
from compress.quantization.onnx_file import FileRequest
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import InputError
from runtimes.lineage import QuantizeRecord, find_record
from runtimes.preprocessing import Preprocessing


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def pixels(count: int = 12, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def model_file() -> Path:
    onnx.save(network(), "model.onnx")
    return Path("model.onnx")


def calibration_of(artifact: Artifact) -> str:
    """Return the sha256 of the images; the files themselves may differ by decisions of the clock."""
    record = find_record(artifact.manifest.lineage, QuantizeRecord)
    assert record is not None
    assert record.calibration_sha256
    return record.calibration_sha256


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[FileRequest]:
    """Return a list that collects requests in place of running them."""
    collected: list[FileRequest] = []

    def collect(request: FileRequest, *_: object) -> Artifact:
        collected.append(replace(request, calibration=tuple(request.calibration)))  # type: ignore[arg-type]
        return Artifact(request.out, None)  # type: ignore[arg-type]

    monkeypatch.setattr("compress.api.quantize.quantize_file", collect)
    return collected


def test_a_module_becomes_an_int8_file_beside_its_float32_file(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    module = make_lively(Chain()).train()
    int8 = compress.quantize(module, pixels())
    assert module.training
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "preprocessing: resize 9, crop 8, bilinear, mean 0.485,0.456,0.406" in shown.err
    assert shown.err.splitlines()[-1] == "wrote Chain-int8.onnx"
    assert Artifact.load(Path("Chain-int8.onnx")) == int8
    float32 = Artifact.load(Path("Chain-int8-float32.onnx"))
    assert (int8.manifest.precision, float32.manifest.precision) == ("int8", "float32")
    assert int8.manifest.labels == float32.manifest.labels == ("0", "1", "2", "3", "4")
    assert int8.manifest.preprocessing == float32.manifest.preprocessing
    files = compress.measure([float32, int8], blocks=2, quiet=True)
    assert [measurement.precision for measurement in files] == ["float32", "int8"]


def test_a_file_is_quantized_in_silence_for_a_target(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    int8 = compress.quantize(model_file(), list(pixels()), "raspberry-pi-5", out=tmp_path / "a" / "pi.onnx", quiet=True)
    assert capsys.readouterr() == ("", "")
    assert int8.path == tmp_path / "a" / "pi.onnx"
    assert int8.manifest.scheme == "arm64"


def test_a_loaded_model_is_quantized_as_its_file() -> None:
    loaded = compress.quantize(network(), pixels(), out="a.onnx", quiet=True)
    of_file = compress.quantize(str(model_file()), pixels(), out="b.onnx", quiet=True)
    assert calibration_of(loaded) == calibration_of(of_file)
    assert (loaded.manifest.input_shape, loaded.manifest.labels) == ((None, 3, 8, 8), of_file.manifest.labels)


def test_files_pictures_and_a_folder_give_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, image in enumerate(pixels(12, 20)):
        Image.fromarray(image).save(folder / f"{index:02}.png")
    paths = sorted(folder.iterdir())
    images = [
        str(folder),
        paths,
        [Image.open(path) for path in paths],
        [np.asarray(Image.open(path)) for path in paths],
    ]
    files = [compress.quantize(model_file(), given, out=f"{number}.onnx", quiet=True)
             for number, given in enumerate(images)]  # fmt: skip
    assert len({calibration_of(file) for file in files}) == 1


def test_the_result_is_beside_a_file_if_nothing_else_is_said(requests: list[FileRequest], tmp_path: Path) -> None:
    compress.quantize(tmp_path / "sub" / "net.onnx", pixels(), quiet=True)
    assert requests[0].out == tmp_path / "sub" / "net-int8.onnx"


def test_settings_are_those_of_the_recipe(requests: list[FileRequest], capsys: pytest.CaptureFixture[str]) -> None:
    compress.quantize("model.onnx", pixels(), calibration_images=10, calibration={"method": "mse"}, min_agreement=0.9)
    (request,) = requests
    assert len(request.calibration) == 10  # type: ignore[arg-type]
    assert (request.settings.calibration.method, request.settings.min_agreement) == ("mse", 0.9)
    assert (
        "calibration images: 10 of 12, evenly spaced; calibration_images sets their number" in capsys.readouterr().err
    )


def test_a_manifest_beside_the_file_gives_the_preprocessing(requests: list[FileRequest]) -> None:
    own = Preprocessing(10, 8, mean=(0.1,) * 3)
    path = model_file()
    Artifact(path, Manifest("0" * 64, 1, "onnx", "float32", "x", (None, 3, 8, 8), "y", own, ("a", "b"))).save_manifest()
    compress.quantize(path, pixels(), quiet=True)
    assert requests[0].preprocessing.mean == own.mean
    with pytest.raises(InputError, match="names another preprocessing than the options"):
        compress.quantize(path, pixels(), preprocessing={"mean": [0.5]}, quiet=True)


@pytest.mark.parametrize(("model", "images", "settings", "message"), [
    ("none.onnx", pixels(), {}, "none.onnx: no such file"),
    ("none.onnx", "no folder", {}, "none.onnx: no such file"),
    ("none.onnx", [], {}, "images: there are none"),
    ("none.onnx", pixels(), {"target": "int4"}, "target: 'int4' is neither a known target nor"),
    ("none.onnx", pixels(), {"methods": "nncf"}, "methods: unknown key; did you mean 'method'?"),
    ("none.onnx", pixels(), {"preprocessing": {"mena": [0.5]}}, "preprocessing.mena: unknown key; did you mean 'mea"),
    ("none.onnx", pixels().astype(np.float32), {}, "images: must be uint8 pixels in 0 to 255, not float32"),
    (3, pixels(), {}, "model: must be a PyTorch module or an ONNX file, not int"),
    (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), pixels(), {}, "module: does not take images of 3 x 8 x 8 ("),
])  # fmt: skip
def test_wrong_arguments_are_one_line(model: Any, images: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        compress.quantize(model, images, quiet=True, **settings)
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) == 1
    assert not list(Path().glob("*.onnx*"))
