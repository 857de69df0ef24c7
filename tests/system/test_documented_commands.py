"""The commands of documents and help texts run as they are written, in a folder that holds what they name."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from command_line import call
from documents import COMMANDS
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from small_imagenet import in_folders, make_images

ROOT = Path(__file__).parents[2]
CLASSES = ("defective", "functional")  # those of ELPV, which one command evaluates
NOT_HERE = {
    "run": "trains for minutes; test_readme.py validates its recipe and test_run.py runs one",
    "sweep": "runs many recipes",
    "deploy": "needs a board; test_deploy.py has one",
    "--mlperf": "takes a minute for each file",
    "imagenet:/data/imagenet": "needs a network with ImageNet's classes",
    "FOLDER": "names a folder of the reader",
}


def runs_here(line: str) -> bool:
    return not set(NOT_HERE) & {*line.split()}


def classifier() -> onnx.ModelProto:
    """Return a float32 classifier of two classes for images of 224 pixels."""
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "head": (8, 2), "bias": (2,)}
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[4, 4]), helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]), helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "head", "bias"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def pictures(folder: Path, count: int, red: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(red)
    for index in range(count):
        pixels = rng.integers(0, 156, (40, 40, 3)) + np.array([red, 0, 100 - red])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a finished run, data sets, models and accepted results under the names of the documents."""
    folder = tmp_path_factory.mktemp("prepared")
    for number, name in enumerate(CLASSES):
        pictures(folder / "data/flowers" / name, 60, 100 * number)
    shutil.copytree(folder / "data/flowers", folder / "photos")
    in_folders(folder / "data/imagenet", make_images())
    recipe = yaml.safe_load((ROOT / "recipes/smoke.yaml").read_text())
    data = {"name": "imagefolder", "root": str(folder / "data/flowers")}
    recipe |= {"name": "mobilenet_int8", "data": data, "timing": {"warmup": 1, "blocks": 3, "runs_per_block": 2}}
    recipe["stages"] = [{"stage": "train", "epochs": 1}]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = folder / "runs/mobilenet_int8"
    assert call("run", folder / "recipe.yaml", "--out", run).exit_code == 0
    for name in ("mobilenet_int8", "solar"):
        assert call("accept", run, "-o", folder / f"recipes/accepted/{name}.json").exit_code == 0
    for name in ("short", "flowers", "solar"):
        shutil.copytree(run, folder / "runs" / name)
    for name in ("model", "your_own", "a", "b", "float32"):
        onnx.save(classifier(), folder / f"{name}.onnx")
    quantized = folder / "int8.onnx"
    result = call("quantize", folder / "model.onnx", "--calibration", folder / "photos", "-o", quantized)
    assert result.exit_code == 0, result.output
    (folder / "elsewhere").mkdir()
    for suffix in (".onnx", ".onnx.json"):
        for name in ("elsewhere/int8", "model-int8"):
            shutil.copy(folder / f"int8{suffix}", folder / f"{name}{suffix}")
    manifest = folder / "elsewhere/int8.onnx.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "labels": CLASSES}))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return folder


def words_of(line: str, folder: Path) -> list[str]:
    """Return the arguments of a command as a shell in `folder` gives them to the program."""
    command = line.partition(" > ")[0].replace("/data/", f"{folder}/data/")
    words: list[str] = []
    for word in shlex.split(command)[1:]:
        matches = [str(path.relative_to(folder)) for path in sorted(folder.glob(word))] if "*" in word else []
        words += matches or [word]
    return words


@pytest.mark.parametrize("line", [line for line in COMMANDS if runs_here(line)])
def test_a_command_runs_as_it_is_written(
    line: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--runtime ov" in line and not importlib.util.find_spec("openvino"):
        pytest.skip("needs OpenVINO")
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    result = call(*words_of(line, folder))
    verdicts = (0, 3, 4) if re.match("compress check", line) else (0,)
    assert result.exit_code in verdicts, result.output
    assert "Traceback" not in result.output


def test_most_commands_run_here() -> None:
    named = {line.split()[1] for line in COMMANDS if runs_here(line)}
    assert {
        "accept",
        "bundle",
        "check",
        "compare",
        "data",
        "evaluate",
        "init",
        "measure",
        "quantize",
        "report",
    } <= named
    assert {key for key in NOT_HERE if any(key in line.split() for line in COMMANDS)} == set(NOT_HERE)
