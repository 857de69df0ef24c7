"""Run a recipe: data, networks, artifacts, measurements, report. Every step is cached; the same command resumes."""

from __future__ import annotations

from pathlib import Path

from compress.pipeline import plan, preflight
from compress.pipeline.checks import CHECK_IMAGES, load_data, unavailable_targets
from compress.pipeline.eta import RunConsole
from compress.pipeline.networks import train_networks
from compress.pipeline.outputs import build, predictions, run_images
from compress.pipeline.run_folder import SEEN, RunFolder
from compress.pipeline.steps import Steps
from compress.process import distributed
from compress.process.tracking import Track
from compress.pruning.plans import PruningPlan
from compress.recipe import own_code
from compress.recipe.recipe import Recipe
from compress.report.build import RunOutputs
from compress.report.publish import publish
from compress.report.report import SAMPLE, EpochRecord, Report
from export.inputs.options import described
from runtimes import environment, evalset
from runtimes.artifact import Artifact
from runtimes.console import Console
from runtimes.evalset import EvalSet
from runtimes.files import read_json

SAMPLE_IMAGES = 64  # of the test split, for bundles


def run(recipe: Recipe, folder: RunFolder, console: Console, track: Track) -> Report | None:
    """Run a recipe in its folder and write the report; cached steps are reused.

    With torchrun all processes run the stages; then the first one continues, and the others return None.
    """
    preflight.require_recipe(recipe)
    unavailable = unavailable_targets(recipe)
    preflight.download_weights(recipe)
    steps = Steps(folder.cache, console, track)
    data = load_data(recipe, steps)
    if distributed.is_first():
        planned = plan.of_data(recipe, data, folder.cache)
        console.say(planned.summary())
        steps.console = RunConsole(console, planned.expected_s, steps.folders)
    images = run_images(recipe, data, steps)
    networks = train_networks(recipe, steps, images)
    if not distributed.is_first():
        return None
    distributed.detach()

    built = build(recipe, images, networks, unavailable)
    test = images.of("test").load()
    _write_sample(folder.path / SAMPLE, test)
    outputs = RunOutputs(
        recipe=recipe.name,
        gate=recipe.gate,
        data=images.data,
        images=test,
        artifacts=built.artifacts,
        measurements=built.measurements,
        environment=environment.describe(),
        unmeasured=built.unmeasured,
        predictions=predictions(networks, images, recipe.device),
        channels=_channels(built.baseline, built.float32),
        val_metrics=built.val_metrics,
        training=_training_histories(steps),
        pruning=_pruning_plans(steps),
        durations_s=steps.durations_s(),
        notes=(f"preprocessing: {described(recipe.preprocessing)}", *images.data.doubts, *networks.notes),
    )
    seen = steps.folders[CHECK_IMAGES] / SEEN
    # Now, as accept reads them with the report.
    folder.write_inputs(recipe.to_yaml(), images.data.splits_json(), seen, own_code.files())
    return publish(outputs, folder.path)


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
