"""The results of a run after training: artifacts, measurements and predictions, each by a cached step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compress.pipeline.artifacts import PARITY_IMAGES, Builder
from compress.pipeline.images import LoadedData, RunImages
from compress.pipeline.measurements import measure_target, val_metrics
from compress.pipeline.networks import Networks, predictions_on
from compress.pipeline.steps import Steps
from compress.recipe.recipe import Recipe
from compress.report.report import BASELINE_FILE, FLOAT32_FILE, UnmeasuredFile
from compress.verdict.metrics import Metric
from compress.verdict.statistics import Estimate
from runtimes.artifact import Artifact
from runtimes.measure import Measurement


@dataclass
class Built:
    """Artifacts of all targets with their measurements. baseline: float32 before pruning, None without pruning.

    val_metrics: of the last artifact of each target, by the target's name.
    """

    baseline: Artifact | None
    float32: Artifact
    artifacts: list[Artifact] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    unmeasured: list[UnmeasuredFile] = field(default_factory=list)
    val_metrics: dict[str, dict[Metric, Estimate]] = field(default_factory=dict)


def run_images(recipe: Recipe, data: LoadedData, steps: Steps) -> RunImages:
    """Return the images of a run; they are prepared when a step needs them."""
    calibration_count = recipe.quantize.calibration_images if recipe.quantize else PARITY_IMAGES
    return RunImages(steps, data, recipe.preprocessing, recipe.seed, calibration_count)


def build(recipe: Recipe, images: RunImages, networks: Networks, unavailable: Mapping[str, str | None]) -> Built:
    """Build the artifacts of all targets and measure them.

    unavailable: why a target can't be measured on this machine, by its name; None where it can.
    """
    steps = images.steps
    builder = Builder(steps, recipe, images.calibration())
    baseline = builder.float32(networks.unpruned, BASELINE_FILE) if networks.unpruned else None
    built = Built(baseline, builder.float32(networks.final, FLOAT32_FILE))
    for target in recipe.targets:
        files = builder.onnx_files(built.baseline, built.float32, networks.final, target)
        reason = unavailable[target.name]
        if reason is None:
            deployed = builder.engines(files, target) if target.runtime == "trt" else files
            if images.data.val:
                built.val_metrics[target.name] = val_metrics(steps, deployed[-1], target, images.of("val"))
            built.measurements += measure_target(steps, deployed, target, images.of("test"), recipe.timing)
        else:
            records, deployed = builder.unmeasured(files, target, reason)
            built.unmeasured += records
        built.artifacts += [artifact for artifact in deployed if artifact not in built.artifacts]
    return built


def predictions(networks: Networks, images: RunImages, device: str) -> dict[str, list[int]]:
    """Return the test predictions of each network whose accuracy is reported, by the name of its step."""
    test = images.of("test")
    return {
        "published weights" if network.name == "network" else network.name: predictions_on(
            images.steps, network, test, device
        )
        for network in networks.evaluated
    }
