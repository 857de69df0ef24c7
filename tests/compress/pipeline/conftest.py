"""Shared by the tests of the pipeline: small recipes, and steps that keep what they show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from consoles import RecordingConsole
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import export.to_onnx
from compress.images.copies import digests_of
from compress.images.samples import Data
from compress.pipeline.images import LoadedData, RunImages
from compress.pipeline.steps import Steps
from compress.recipe import named_data
from compress.recipe import recipe as recipes
from compress.recipe.recipe import Recipe
from export.to_onnx import OnnxFile
from runtimes.artifact import Artifact, Manifest
from runtimes.lineage import Parity
from runtimes.preprocessing import Preprocessing

SMALL = {
    "name": "small",
    "data": {"name": "synthetic", "images_per_class": 20, "size": 32, "noise": 12},
    "preprocessing": {"resize": 32, "crop": 32, "mean": [0.5] * 3, "std": [0.25] * 3},
    "model": {"arch": "mobilenet_v2", "width": 0.25},
    "quantize": {"calibration_images": 8},
    "timing": {"warmup": 1, "blocks": 2, "runs_per_block": 2, "sessions": 1},
}


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Give a function that reads a small recipe with other sections."""

    def make(**sections: Any) -> Recipe:
        path = tmp_path / "recipe.yaml"
        content = {name: section for name, section in {**SMALL, **sections}.items() if section is not None}
        path.write_text(yaml.safe_dump(content))
        return recipes.load(path)

    return make


@pytest.fixture
def new_steps(tmp_path: Path) -> Callable[[], Steps]:
    """Give a function that opens the same cache again, as a later run does."""
    return lambda: Steps(tmp_path / "run", RecordingConsole(), lambda stage, epoch, values: None)


@pytest.fixture
def make_images(stripes: Data, small: Preprocessing) -> Callable[[Steps], RunImages]:
    """Give a function from steps to the images of `stripes`."""
    return lambda steps: RunImages(steps, LoadedData.of(stripes), small, 0, 8)


def classifier(path: Path, image: tuple[int, int, int], opset: int, batch: int | None) -> OnnxFile:
    """Write a graph that averages the pixels of an image and multiplies them by three classes."""
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "weight")
    bias = numpy_helper.from_array(np.zeros(3, np.float32), "bias")
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], "gemm"),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch or "batch", *image])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch or "batch", 3])], [weight, bias],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return OnnxFile(path, opset, (batch, *image))


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Export a small graph instead of the network, which takes fifteen seconds, and give the files."""
    written: list[Path] = []

    def to_onnx(network: Any, path: Path, image: tuple[int, int, int], opset: int, batch: int | None) -> OnnxFile:
        written.append(path)
        return classifier(path, image, opset, batch)

    monkeypatch.setattr(export.to_onnx, "to_onnx", to_onnx)
    monkeypatch.setattr("export.parity.require_same", lambda torch, onnx, name: Parity(8, 1.0, 0.0, None))
    return written


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Return class folders with 20 different images each."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(20):
            Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


@pytest.fixture
def make_run(tmp_path: Path, class_folders: Path) -> Callable[..., Artifact]:
    """Return a function that writes the folder of a run on `class_folders` and returns its artifact."""

    def make(name: str = "run", digests: bool = True, **settings: object) -> Artifact:
        config = named_data.config_of(f"imagefolder:{class_folders}").model_copy(update=settings)
        section = config.model_dump(mode="json")
        data = named_data.load_config(config)
        folder = tmp_path / name
        (folder / "artifacts").mkdir(parents=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": name, "data": section}))
        (folder / "splits.json").write_text(json.dumps(data.splits_json()))
        if digests:
            seen = {split: digests_of(data.split(split)) for split in ("train", "val")}
            np.savez(folder / "seen.npz", **seen)  # type: ignore[arg-type]
        manifest = Manifest(
            "0" * 64, 1, "onnx", "float32", "in", (None, 3, 4, 4), "out", Preprocessing(4, 4), ("cat", "dog")
        )
        return Artifact(folder / "artifacts" / "model.onnx", replace(manifest, recipe=name))

    return make
