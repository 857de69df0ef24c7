"""Whole runs on long images of one channel, and on images with transparency."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from command_line import assert_one_line, call
from PIL import Image

from runtimes import evalset
from runtimes.artifact import Artifact
from runtimes.preprocessing import Preprocessing

STAGES = [
    {"stage": "train", "epochs": 1, "batch_size": 8, "resize_from": 16},
    {"stage": "prune", "macs": 0.7},
    {"stage": "distill", "epochs": 1, "batch_size": 8, "augment": {"crop_scale": [0.5, 1], "policy": "randaugment"}},
    {"stage": "qat", "epochs": 1, "batch_size": 8},
]


def write_waves(root: Path, size: tuple[int, int], mode: str = "L") -> Path:
    """Write 2 classes of 14 images, which differ in the direction of waves. size: (width, height)."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    for label in range(2):
        (root / f"waves{label}").mkdir(parents=True)
        for index in range(14):
            wave = np.sin(0.4 * (columns if label else rows) + index)
            image = Image.fromarray((128 + 100 * wave).astype(np.uint8)).convert(mode)
            image.save(root / f"waves{label}" / f"{index}.{'png' if mode == 'RGBA' or index % 2 else 'jpg'}")
    return root


def recipe_for(tmp_path: Path, images: Path, **sections: Any) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({
        "data": {"name": "imagefolder", "root": str(images)},
        "model": {"arch": "mobilenet_v2", "width": 0.25},
        "quantize": {"calibration_images": 8},
        "targets": [{"name": "this-cpu", "runtime": "ort", "threads": 1}],
        "timing": {"warmup": 1, "blocks": 2, "runs_per_block": 1},
        **sections,
    }))  # fmt: skip
    return path


def run(recipe: Path) -> Path:
    out = recipe.parent / "run"
    done = call("run", recipe, "--out", out)
    assert done.exit_code == 0, done.output
    return out


@pytest.mark.slow
def test_long_grey_images_pass_through_the_whole_pipeline_to_a_board(tmp_path: Path) -> None:
    images = write_waves(tmp_path / "waves", (100, 30))
    recipe = recipe_for(tmp_path, images, preprocessing={"crop": [24, 80], "channels": 1}, stages=STAGES)
    assert call("validate", recipe).exit_code == 0
    out = run(recipe)
    wanted = Preprocessing(27, (24, 80), mean=(0.449,), std=(0.226,), channels="grey")
    artifacts = [Artifact.load(path) for path in sorted((out / "artifacts").glob("*.onnx"))]
    assert {artifact.manifest.precision for artifact in artifacts} == {"float32", "int8"}
    for artifact in artifacts:
        assert artifact.manifest.preprocessing == wanted
        assert artifact.manifest.input_shape[1:] == (1, 24, 80)
        (tensor,) = onnx.load(artifact.path).graph.input
        assert [size.dim_value for size in tensor.type.tensor_type.shape.dim][1:] == [1, 24, 80]
    assert evalset.load(out / "sample").images.shape[1:] == (24, 80, 1)

    assert call("bundle", out, "-o", tmp_path / "board.tar").exit_code == 0
    with tarfile.open(tmp_path / "board.tar") as archive:
        archive.extractall(tmp_path / "board", filter="data")
    picture = images / "waves1" / "1.png"
    for command in (["verify"], ["predict", str(picture)]):
        done = subprocess.run(
            [sys.executable, tmp_path / "board" / "run.pyz", *command], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    int8 = next(artifact.path for artifact in artifacts if artifact.manifest.precision == "int8")
    done = call("evaluate", int8, "--data", f"imagefolder:{images}", "--json")
    assert done.exit_code == 0, done.output
    done = call("measure", int8, "--blocks", "2", "--json")
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_transparent_images_are_quantized_with_pixels_as_input(tmp_path: Path) -> None:
    images = write_waves(tmp_path / "waves", (40, 32), "RGBA")
    recipe = recipe_for(
        tmp_path, images, preprocessing={"crop": [32, 40], "channels": "rgba"}, stages=STAGES[:1],
        export={"input": "uint8", "output": "probabilities"},
    )  # fmt: skip
    out = run(recipe)
    report = json.loads((out / "report.json").read_text())
    assert [row["precision"] for row in report["rows"]] == ["float32", "int8"]
    for path in (out / "artifacts").glob("*.onnx"):
        (tensor,) = onnx.load(path).graph.input
        assert [size.dim_value for size in tensor.type.tensor_type.shape.dim][1:] == [32, 40, 4]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"preprocessing": {"crop": [48, 192], "channels": 1, "mean": [0.5, 0.5, 0.5]}},
         "preprocessing: mean: has 3 values, and channels: 1 has 1; give one number"),
        ({"preprocessing": {"crop": [48, 192], "resize": 32}}, "preprocessing: must have 1 <= crop <= resize <= 4096"),
        ({"preprocessing": {"crop": [48, 192]}, "stages": [{"stage": "train", "augment": {"transpose": True}}]},
         "stages.0.augment.transpose: swaps rows and columns, so it needs a square crop, not 48x192"),
        ({"preprocessing": {"channels": "rgba"}, "stages": [{"stage": "train", "augment": {"policy": "randaugment"}}]},
         "stages.0.augment.policy: randaugment: is for 1 or 3 channels, not rgba"),
        ({"preprocessing": {"crop": [32, 192], "channels": 1}, "model": {"arch": "inception_v3"}},
         "model: inception_v3: the network can't take images of 1 channel and 32 x 192 pixels"),
    ],
)  # fmt: skip
def test_wrong_combinations_are_one_line(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    images = write_waves(tmp_path / "waves", (20, 16))
    assert_one_line(call("run", recipe_for(tmp_path, images, **sections), "--out", tmp_path / "run"), 2, message)
