from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.models import mobilenet_v2
from compress.networks import checkpoint
from compress.pipeline.artifacts import Builder
from compress.pipeline.images import RunImages
from compress.pipeline.networks import Checkpoint
from compress.pipeline.steps import Steps
from compress.quantization.config import LEARNED
from compress.recipe.recipe import Recipe
from compress.stages import prune, train
from runtimes import engine, environment
from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, InputError
from runtimes.files import write_json
from runtimes.lineage import StageRecord
from runtimes.target import Target

MakeBuilder = Callable[..., Builder]
pytestmark = pytest.mark.usefixtures("exports")


@pytest.fixture
def network(tmp_path: Path) -> Checkpoint:
    """A network that was trained."""
    config = mobilenet_v2.Config(width=0.25)
    checkpoint.save(tmp_path / "network", mobilenet_v2.build(config, 3))
    return Checkpoint("0-train", tmp_path / "network", config, 3, 3, (train.Config(),))


@pytest.fixture
def make_builder(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages]
) -> MakeBuilder:
    """Give a function that opens the builder of a recipe with other sections."""

    def make(**sections: Any) -> Builder:
        steps = new_steps()
        return Builder(steps, make_recipe(**sections), make_images(steps).calibration())

    return make


def stages_of(artifact: Artifact) -> list[str]:
    return [record.settings["stage"] for record in artifact.manifest.lineage if isinstance(record, StageRecord)]


def test_a_manifest_lists_the_stages_of_its_own_network_only(make_builder: MakeBuilder, network: Checkpoint) -> None:
    stages = [{"stage": "train"}, {"stage": "prune", "macs": 0.5}]
    builder = make_builder(stages=stages)
    pruned = replace(network, stages=(*network.stages, prune.Config(macs=0.5)))
    baseline, float32 = builder.float32(network, "model-baseline.onnx"), builder.float32(pruned, "model-float32.onnx")
    assert stages_of(baseline) == ["train"]
    assert stages_of(float32) == ["train", "prune"]
    assert (float32.manifest.recipe, float32.manifest.precision, float32.manifest.input_shape) == (
        "small", "float32", (None, 3, 32, 32)
    )  # fmt: skip
    assert list(builder.steps.folders)[-2:] == ["baseline", "float32"] or "float32" in builder.steps.folders


def test_a_file_is_exported_once_per_network(
    make_builder: MakeBuilder, network: Checkpoint, exports: list[Path]
) -> None:
    first = make_builder().float32(network, "model-float32.onnx")
    assert make_builder().float32(network, "model-float32.onnx").path == first.path
    make_builder(export={"batch": 2}, targets=[{"name": "pairs", "batch": 2}]).float32(network, "model-float32.onnx")
    assert len(exports) == 2


def test_a_damaged_file_of_a_step_is_named_with_its_cure(make_builder: MakeBuilder, network: Checkpoint) -> None:
    path = make_builder().float32(network, "model-float32.onnx").path
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match=r"float32-\w+: a file of this step is damaged .*; delete this folder"):
        make_builder().float32(network, "model-float32.onnx")


def test_targets_of_one_scheme_share_an_int8_file(make_builder: MakeBuilder, network: Checkpoint) -> None:
    targets = [{"name": "one"}, {"name": "two", "threads": 2}]
    builder = make_builder(targets=targets)
    float32 = builder.float32(network, "model-float32.onnx")
    found = [builder.onnx_files(None, float32, network, target) for target in builder.recipe.targets]
    assert [[artifact.manifest.precision for artifact in files] for files in found] == [["float32", "int8"]] * 2
    assert found[0][1].path == found[1][1].path


def test_a_recipe_without_quantize_has_no_int8_file(make_builder: MakeBuilder, network: Checkpoint) -> None:
    builder = make_builder(quantize=None)
    float32 = builder.float32(network, "model-float32.onnx")
    assert builder.onnx_files(None, float32, network, Target("here")) == [float32]


def test_pixels_and_probabilities_are_put_into_each_file(make_builder: MakeBuilder, network: Checkpoint) -> None:
    builder = make_builder(export={"input": "uint8", "output": "probabilities"}, quantize=None)
    float32 = builder.float32(network, "model-float32.onnx")
    (deployed,) = builder.onnx_files(None, float32, network, Target("here"))
    assert (deployed.manifest.input_dtype, deployed.manifest.output) == ("uint8", "probabilities")
    assert deployed.path.name == float32.path.name
    assert deployed.path != float32.path


def test_a_gpu_gets_a_float16_file(make_builder: MakeBuilder, network: Checkpoint) -> None:
    builder = make_builder(quantize=None)
    float32 = builder.float32(network, "model-float32.onnx")
    files = builder.onnx_files(None, float32, network, Target("gpu", runtime="trt", provider="cuda"))
    assert [artifact.manifest.precision for artifact in files] == ["float32", "float16"]


def test_learned_ranges_must_fit_the_targets_scheme(make_builder: MakeBuilder, network: Checkpoint) -> None:
    write_json(network.folder / LEARNED, {"scheme": "tensorrt", "ranges": {"images": [-1.0, 1.0]}})
    builder = make_builder()
    float32 = builder.float32(network, "model-float32.onnx")
    with pytest.raises(InputError, match=r"stages: qat trained for tensorrt, a target needs .*; set its scheme"):
        builder.onnx_files(None, float32, network, Target("here"))


def test_learned_ranges_are_part_of_the_key(make_builder: MakeBuilder, network: Checkpoint) -> None:
    builder = make_builder()
    float32 = builder.float32(network, "model-float32.onnx")
    calibrated = builder.onnx_files(None, float32, network, Target("local"))[-1]
    ranges = {"images": [-2.0, 2.0], "pooled": [-1.0, 1.0], "logits": [-1.0, 1.0]}
    write_json(network.folder / LEARNED, {"scheme": "arm64", "ranges": ranges})
    assert builder.onnx_files(None, float32, network, Target("local"))[-1].path != calibrated.path


def test_files_of_a_target_elsewhere_are_listed_with_reason_and_estimate(
    make_builder: MakeBuilder, network: Checkpoint
) -> None:
    targets: list[Any] = [{"name": "here"}, "raspberry-pi-5"]
    builder = make_builder(targets=targets)
    board = builder.recipe.targets[1]
    float32 = builder.float32(network, "model-float32.onnx")
    files = builder.onnx_files(None, float32, network, board)
    rows, deployed = builder.unmeasured(files, board, "it is another machine")
    assert deployed == files
    assert [(row.artifact, row.precision, row.reason) for row in rows] == [
        (artifact.path.name, artifact.manifest.precision, "it is another machine") for artifact in files
    ]
    assert all(row.estimate_ms is not None and row.estimate_ms > 0 for row in rows)


def test_engines_are_built_once(
    make_builder: MakeBuilder, network: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = engine.Build("tensorrt_rtx", "1.7", "8.6", (1, 1, 32), None)
    monkeypatch.setattr(engine, "build_for", lambda artifact, target: build)
    built: list[Path] = []

    def to_trt(artifact: Artifact, target: Target, path: Path, console: Any, timing_cache: Path) -> None:
        built.append(path)
        path.write_bytes(b"engine")
        artifact.derive(path, format="trt").save_manifest()

    monkeypatch.setitem(sys.modules, "export.to_trt", SimpleNamespace(to_trt=to_trt))
    builder = make_builder(quantize=None)
    float32 = builder.float32(network, "model-float32.onnx")
    target = Target("rtx", runtime="trt", provider="cuda", compute_capability="8.6")
    monkeypatch.setattr(environment, "why_not_here", lambda target: "no GPU")
    (first,) = builder.engines([float32], target)
    assert builder.engines([float32], target) == [first]
    assert first.path.name == "model-float32-sm86.engine"
    assert len(built) == 1
