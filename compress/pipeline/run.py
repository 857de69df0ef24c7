"""The whole story: data, network, stages, float32, INT8, measurements, report. Every step is a file; a run resumes."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compress.images import samples
from compress.images.samples import Data, Rejected
from compress.pipeline.artifacts import elsewhere, engines, float32_file, onnx_files
from compress.pipeline.run_folder import RunFolder
from compress.pipeline.steps import TRAINING_PACKAGES, Work, origin
from compress.process import distributed
from compress.process.console import Terminal
from compress.process.tracking import Track
from compress.recipe import plugins
from compress.recipe.recipe import Recipe
from compress.report import publish, report
from compress.report.build import RunOutputs
from compress.training.context import Context
from runtimes import environment, evalset
from runtimes.artifact import Artifact
from runtimes.errors import InputError, UnavailableError
from runtimes.files import write_json, write_text
from runtimes.measure import Measurement, evaluate, measure
from runtimes.session import package_of
from runtimes.target import Target

SAMPLE_IMAGES = 64  # of the test split, that go into bundles


def run(recipe: Recipe, folder: RunFolder, terminal: Terminal, track: Track) -> report.Report | None:
    """Run a recipe in its folder and write the report; finished steps are taken from the folder.

    Of several processes all do the stages, and the first does the rest; the others return None.
    """
    _require_runtimes(recipe)
    why_not = {target.name: environment.why_not_here(target) for target in recipe.targets}
    _require_here(recipe, why_not)
    if distributed.is_first():
        write_text(folder.path / "recipe.yaml", recipe.to_yaml())
    data = _readable_data(recipe, folder, terminal)
    work = Work(recipe, folder, terminal, data, data.fingerprint(), track)
    if distributed.is_first():
        write_json(folder.path / "splits.json", work.data.splits_json())

    checkpoint = work.step("network", [recipe.model, _weights_identity(recipe)], TRAINING_PACKAGES, _create_network)
    baseline: Path | None = None  # the network before it was first cut
    networks = {"published weights": checkpoint} if recipe.model.weights and recipe.stages else {}
    for index, stage in enumerate(recipe.stages):
        plugin = plugins.load("stages", stage.stage)
        inputs = [checkpoint.name, stage, recipe.preprocessing, recipe.device]
        if getattr(plugin, "CUTS", False):
            baseline = baseline or checkpoint
            inputs += [stage.measures_on(recipe.targets), environment.describe().for_runtimes()]
        inputs += [baseline.name] if baseline else []
        make = partial(_run_stage, stage=stage, previous=checkpoint, baseline=baseline or checkpoint)
        checkpoint = work.step(f"{index}-{stage.stage}", inputs, TRAINING_PACKAGES, make, together=True)
        networks[f"{index}-{stage.stage}"] = checkpoint
    if not distributed.is_first():
        return None
    distributed.detach()

    float32 = float32_file(work, checkpoint, report.FLOAT32_FILE)
    before = [float32_file(work, baseline, report.BASELINE_FILE)] if baseline else []

    measurements: list[Measurement] = []
    unmeasured: list[report.UnmeasuredFile] = []
    artifacts: list[Artifact] = []
    val_top1: dict[str, float] = {}
    for target in recipe.targets:
        files = onnx_files(work, before, float32, checkpoint, target)
        why = why_not[target.name]
        if why is None:
            shipped = engines(work, files, target) if target.runtime == "trt" else files
            measurements += _measure(work, shipped, target)
            val_top1 |= _val_top1(work, shipped[-1], target)
        else:
            rows, shipped = elsewhere(work, files, target, why)
            unmeasured += rows
        artifacts += [artifact for artifact in shipped if artifact not in artifacts]
    _write_sample(work)
    answers = {name: _answers(work, network) for name, network in networks.items()}
    outputs = RunOutputs(
        recipe=recipe.name,
        gate=recipe.gate,
        data=work.data,
        images=work.prepared("test"),
        artifacts=artifacts,
        measurements=measurements,
        environment=environment.describe(),
        durations_s=folder.durations_s(),
        unmeasured=unmeasured,
        training=_training_history(folder),
        pruning=_plans(folder),
        predictions=answers,
        channels=_channels(before, float32),
        val_top1=val_top1,
    )
    return publish.publish(outputs, folder.path)


def _require_runtimes(recipe: Recipe) -> None:
    """Raise before any work where a target's runtime is missing, or runs other files than a recipe makes."""
    for target in recipe.targets:
        if target.runtime == "litert":
            raise InputError(
                f"target '{target.name}': a recipe makes ONNX files and engines; convert its ONNX file with "
                "python -m export.to_litert and measure that with: compress measure FILE --runtime litert"
            )
        package = package_of(target.runtime)
        if target.runtime != "trt" and package and not environment.package_versions((package,)):
            raise UnavailableError(f"target '{target.name}': its runtime needs a package: pip install {package}")


def _require_here(recipe: Recipe, why_not: dict[str, str | None]) -> None:
    """Raise before any work where nothing can be measured here, or not what a stage measures on."""
    if all(why_not.values()):
        told = "; ".join(f"target '{name}': {why}" for name, why in why_not.items())
        raise UnavailableError(f"no target can be measured here, add one that can or run the recipe there: {told}")
    for index, stage in enumerate(recipe.stages):
        needed = stage.measures_on(recipe.targets)
        if needed and why_not[needed.name]:
            raise UnavailableError(
                f"stages.{index}: target '{needed.name}' can't be measured here, {why_not[needed.name]}; "
                "name another target, or give macs in place of latency"
            )


def _readable_data(recipe: Recipe, folder: RunFolder, terminal: Terminal) -> Data:
    """Load the data set and set aside what can't be decoded, which is looked up once per content."""
    data: Data = plugins.load("data", recipe.data.name).load(recipe.data)
    if not data.test:
        raise InputError("the data set has no test split to measure on; give data.test or data.root")
    if recipe.gate and recipe.gate.max_top1_drop_pp is not None and any(one.label is None for one in data.test):
        raise InputError("gate.max_top1_drop_pp: the test images have no labels; give min_agreement in its place")
    if recipe.stages and not (data.train and data.val):
        raise InputError("the stages need the splits train and val; give data.root or data.train")

    def check(step: Path) -> None:
        kept = samples.set_aside_unreadable(data, recipe.max_unreadable_images, terminal)
        write_json(step / "rejected.json", [asdict(one) for one in kept.rejected])
        for one in kept.rejected:
            terminal.say(f"set aside: {one.name}: {one.reason}")

    step = folder.step("check-images", [data.fingerprint(), recipe.max_unreadable_images], ("pillow",), check)
    rejected = json.loads((step / "rejected.json").read_text())
    return samples.without(data, tuple(Rejected(**one) for one in rejected))


def _create_network(work: Work, folder: Path) -> None:
    from compress.networks import checkpoint, weights

    network = weights.create(work.recipe.model, len(work.data.classes), work.recipe.seed)
    checkpoint.save(folder, network)


def _run_stage(work: Work, folder: Path, stage: Any, previous: Path, baseline: Path) -> None:
    from compress.networks import checkpoint, weights

    def teacher(network: Any) -> Any:
        if network == "baseline":
            return checkpoint.load(baseline, work.recipe.model, len(work.data.classes))
        return weights.create(network, len(work.data.classes), work.recipe.seed)

    context = Context(
        name=folder.name.rpartition("-")[0],
        classes=work.data.classes,
        train=work.data.train,
        preprocessing=work.recipe.preprocessing,
        seed=work.recipe.seed,
        device=_device(work.recipe.device),
        folder=folder,
        targets=work.recipe.targets,
        teacher=teacher,
        prepared=work.training_images,
        subset=work.some_training_images,
        track=partial(work.track, folder.name),
        console=work.terminal,
    )
    network = checkpoint.load(previous, work.recipe.model, len(work.data.classes))
    trained = plugins.load("stages", stage.stage).run(network, context, stage)
    if distributed.is_first():
        checkpoint.save(folder, trained)


def _device(asked: str) -> str:
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("device: cuda, but torch finds no GPU here; set device: cpu or auto")
    torch.backends.cudnn.benchmark = True  # try which way to convolve is the fastest, once per shape
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _weights_identity(recipe: Recipe) -> Any:
    """Return what tells one local weights file from another."""
    path = Path(recipe.model.weights or "")
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None


def _measure(work: Work, artifacts: list[Artifact], target: Target) -> list[Measurement]:
    """Measure the artifacts interleaved, on the test split, which nothing else reads."""
    images = work.prepared("test")
    inputs = [[origin(artifact) for artifact in artifacts], target, work.recipe.timing, images.sha256,
              environment.describe().for_runtimes()]  # fmt: skip

    def make(work: Work, folder: Path) -> None:
        work.terminal.say(f"measure on target '{target.name}'")
        taken = measure(artifacts, target, images, work.recipe.timing, work.terminal)
        write_json(folder / "measurements.json", [measurement.to_json() for measurement in taken])

    folder = work.step(f"measure-{target.name}", inputs, (), make)
    return [Measurement.from_json(fields) for fields in json.loads((folder / "measurements.json").read_text())]


def _val_top1(work: Work, artifact: Artifact, target: Target) -> dict[str, float]:
    """Return top-1 of what ships on val, by target, for those who compare settings: the test split is not for that."""
    if not work.data.val:
        return {}

    def make(work: Work, folder: Path) -> None:
        images = work.prepared("val")
        right = evaluate(artifact, target, images).argmax(1) == images.labels
        write_json(folder / "top1.json", float(np.mean(right)))

    inputs = [origin(artifact), target, environment.describe().for_runtimes()]
    return {target.name: json.loads((work.step(f"val-{target.name}", inputs, (), make) / "top1.json").read_text())}


def _answers(work: Work, network: Path) -> list[int]:
    """Return what a network answers to the test images, in torch: for the way to what ships, which has its own figures.

    It is asked when all else is done, so that nothing could be chosen by it.
    """

    def make(work: Work, folder: Path) -> None:
        from compress.networks import checkpoint
        from compress.training.loop import predict

        device = _device(work.recipe.device)
        module = checkpoint.load(network, work.recipe.model, len(work.data.classes)).to(device)
        write_json(folder / "predicted.json", predict(module, work.prepared("test"), device).argmax(1).tolist())

    inputs = [network.name, work.recipe.preprocessing, work.recipe.device]
    step = work.step(f"answers-{network.name.rpartition('-')[0]}", inputs, TRAINING_PACKAGES, make)
    answers: list[int] = json.loads((step / "predicted.json").read_text())
    return answers


def _channels(before: list[Artifact], float32: Artifact) -> dict[str, tuple[int, int]]:
    """Return each layer's output channels before and after the network was cut; layers keep their order."""
    from export.layers import output_channels

    now = output_channels(float32.path)
    old = output_channels(before[0].path) if before else now
    return {name: (was, now[name]) for was, name in zip(old.values(), now, strict=True)}


def _write_sample(work: Work) -> None:
    """Leave some test images for bundles."""
    chosen = work.prepared("test").spread(SAMPLE_IMAGES)
    evalset.write(
        work.folder.path / report.SAMPLE, chosen.images, chosen.labels, chosen.names, chosen.classes,
        chosen.preprocessing,
    )  # fmt: skip


def _training_history(folder: RunFolder) -> dict[str, list[report.EpochRecord]]:
    """Return the epochs of every stage that trained, by step name."""
    files = {name: step / "history.json" for name, step in folder.steps.items()}
    return {
        name: [report.EpochRecord.from_history(epoch) for epoch in json.loads(path.read_text())]
        for name, path in files.items()
        if path.exists()
    }


def _plans(folder: RunFolder) -> dict[str, list[dict[str, Any]]]:
    """Return the plans of every stage that cut, by its step's name, in the order of its rounds."""
    files = {name: sorted(step.glob("plan-*.json")) for name, step in folder.steps.items()}
    return {name: [json.loads(path.read_text()) for path in paths] for name, paths in files.items() if paths}
