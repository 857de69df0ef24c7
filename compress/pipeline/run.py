"""Run a recipe: data, networks, artifacts, measurements, report. Every step is cached; the same command resumes."""

from __future__ import annotations

from pathlib import Path

from compress.pipeline import preflight
from compress.pipeline.artifacts import PARITY_IMAGES, Builder
from compress.pipeline.checks import CHECK_IMAGES, load_data, unavailable_targets
from compress.pipeline.images import RunImages
from compress.pipeline.measurements import measure_target, val_metrics
from compress.pipeline.networks import Networks, predictions_on, train_networks
from compress.pipeline.run_folder import SEEN, RunFolder
from compress.pipeline.steps import Steps
from compress.process import distributed
from compress.process.tracking import Track
from compress.pruning.plans import PruningPlan
from compress.recipe.recipe import Recipe
from compress.report.build import RunOutputs
from compress.report.publish import publish
from compress.report.report import BASELINE_FILE, FLOAT32_FILE, SAMPLE, EpochRecord, Report, UnmeasuredFile
from compress.verdict.metrics import Metric
from runtimes import environment, evalset
from runtimes.artifact import Artifact
from runtimes.console import Console
from runtimes.evalset import EvalSet
from runtimes.files import read_json
from runtimes.measure import Measurement

SAMPLE_IMAGES = 64  # of the test split, for bundles


def run(recipe: Recipe, folder: RunFolder, console: Console, track: Track) -> Report | None:
    """Run a recipe in its folder and write the report; cached steps are reused.

    With torchrun all processes run the stages; then the first one continues, and the others return None.
    """
    preflight.require_recipe(recipe)
    unavailable = unavailable_targets(recipe)
    steps = Steps(folder.cache, console, track)
    data = load_data(recipe, steps)
    calibration_count = recipe.quantize.calibration_images if recipe.quantize else PARITY_IMAGES
    images = RunImages(steps, data, recipe.preprocessing, recipe.seed, calibration_count)
    networks = train_networks(recipe, steps, images)
    if not distributed.is_first():
        return None
    distributed.detach()

    builder = Builder(steps, recipe, images.calibration())
    float32 = builder.float32(networks.final, FLOAT32_FILE)
    baseline = builder.float32(networks.unpruned, BASELINE_FILE) if networks.unpruned else None
    artifacts: list[Artifact] = []
    measurements: list[Measurement] = []
    unmeasured: list[UnmeasuredFile] = []
    val: dict[str, dict[Metric, float]] = {}
    for target in recipe.targets:
        files = builder.onnx_files(baseline, float32, networks.final, target)
        reason = unavailable[target.name]
        if reason is None:
            deployed = builder.engines(files, target) if target.runtime == "trt" else files
            measurements += measure_target(steps, deployed, target, images.of("test"), recipe.timing)
            if images.data.val:
                val[target.name] = val_metrics(steps, deployed[-1], target, images.of("val"))
        else:
            records, deployed = builder.unmeasured(files, target, reason)
            unmeasured += records
        artifacts += [artifact for artifact in deployed if artifact not in artifacts]

    test = images.of("test").load()
    _write_sample(folder.path / SAMPLE, test)
    outputs = RunOutputs(
        recipe=recipe.name,
        gate=recipe.gate,
        data=images.data,
        images=test,
        artifacts=artifacts,
        measurements=measurements,
        environment=environment.describe(),
        unmeasured=unmeasured,
        predictions=_predictions(steps, networks, images, recipe.device),
        channels=_channels(baseline, float32),
        val_metrics=val,
        training=_training_histories(steps),
        pruning=_pruning_plans(steps),
        durations_s=steps.durations_s(),
        notes=(*images.data.doubts, *networks.notes),
    )
    seen = steps.folders[CHECK_IMAGES] / SEEN
    folder.write_inputs(recipe.to_yaml(), images.data.splits_json(), seen)  # now, as accept reads them with the report
    return publish(outputs, folder.path)


def _predictions(steps: Steps, networks: Networks, images: RunImages, device: str) -> dict[str, list[int]]:
    """Return the test predictions of each network whose accuracy is reported, by the name of its step."""
    test = images.of("test")
    return {
        "published weights" if network.name == "network" else network.name: predictions_on(steps, network, test, device)
        for network in networks.evaluated
    }


def _channels(baseline: Artifact | None, float32: Artifact) -> dict[str, tuple[int, int]]:
    """Return each layer's output channels before pruning and now; pruning keeps the order of layers."""
    from export.layers import output_channels  # imports onnx

    now = output_channels(float32.path)
    before = output_channels(baseline.path) if baseline else now
    return {name: (old, now[name]) for old, name in zip(before.values(), now, strict=True)}


def _write_sample(folder: Path, test: EvalSet) -> None:
    """Write some test images, which bundles take along."""
    sample = test.spread(SAMPLE_IMAGES)
    evalset.write(folder, sample.images, sample.labels, sample.names, sample.classes, sample.preprocessing)


def _training_histories(steps: Steps) -> dict[str, tuple[EpochRecord, ...]]:
    """Return the epochs of each stage that trained, by the name of its step."""
    paths = {name: folder / "history.json" for name, folder in steps.folders.items()}
    return {
        name: tuple(EpochRecord.from_history(epoch) for epoch in read_json(path))
        for name, path in paths.items()
        if path.exists()
    }


def _pruning_plans(steps: Steps) -> dict[str, list[PruningPlan]]:
    """Return the plans of each stage that pruned, by the name of its step, one for each round."""
    paths = {name: sorted(folder.glob("plan-*.json")) for name, folder in steps.folders.items()}
    return {name: [PruningPlan.from_json(read_json(path)) for path in plans] for name, plans in paths.items() if plans}
