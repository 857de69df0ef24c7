"""The whole story: data, network, stages, float32, INT8, measurements, report. Every step is a file; a run resumes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from compress import dataset, plugins, report
from compress.context import Context
from compress.dataset import Data, Rejected, Sample
from compress.quantization.config import LEARNED
from compress.quantization.schemes import SCHEMES
from compress.recipe import Recipe
from compress.run_folder import RunFolder
from compress.terminal import Terminal
from export.scheme import Scheme
from runtimes import environment, evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import InputError, UnavailableError
from runtimes.evalset import EvalSet
from runtimes.files import sha256_file, write_json, write_text
from runtimes.measure import Measurement, evaluate, measure
from runtimes.target import Target

PARITY_IMAGES = 64
SAMPLE_IMAGES = 64  # of the test split, that go into bundles
PARITY_TARGET = Target("parity", threads=2)
TRAINING_PACKAGES = ("torch", "torchvision", "timm")
EXPORT_PACKAGES = (*TRAINING_PACKAGES, "onnx", "onnxscript", "onnxruntime", "numpy")
QUANTIZATION_PACKAGES = ("onnx", "onnxruntime", "numpy", "nncf")


def run(recipe: Recipe, folder: RunFolder, terminal: Terminal) -> report.Report:
    """Run a recipe in its folder and write the report; finished steps are taken from the folder."""
    _require_runnable(recipe)
    write_text(folder.path / "recipe.yaml", recipe.to_yaml())
    data = _readable_data(recipe, folder, terminal)
    work = _Work(recipe, folder, terminal, data, data.fingerprint())
    write_json(folder.path / "splits.json", work.data.splits_json())

    checkpoint = work.step("network", [recipe.model, _weights_identity(recipe)], TRAINING_PACKAGES, _create_network)
    baseline: Path | None = None  # the network before it was first cut
    for index, stage in enumerate(recipe.stages):
        plugin = plugins.load("stages", stage.stage)
        inputs = [checkpoint.name, stage, recipe.preprocessing, recipe.device]
        if getattr(plugin, "CUTS", False):
            baseline = baseline or checkpoint
            inputs += [recipe.targets, environment.describe().for_runtimes()]
        inputs += [baseline.name] if baseline else []
        make = partial(_run_stage, stage=stage, previous=checkpoint, baseline=baseline or checkpoint)
        checkpoint = work.step(f"{index}-{stage.stage}", inputs, TRAINING_PACKAGES, make)

    float32 = _float32(work, checkpoint, "model-float32.onnx")
    before = [_float32(work, baseline, report.BASELINE_FILE)] if baseline else []

    measurements: list[Measurement] = []
    artifacts: list[Artifact] = []
    for target in recipe.targets:
        int8 = [_int8(work, float32, target, checkpoint)] if recipe.quantize else []
        shipped = [_self_contained(work, artifact) for artifact in (*before, float32, *int8)]
        measurements += _measure(work, shipped, target)
        artifacts += [artifact for artifact in shipped if artifact not in artifacts]
    _write_sample(work)
    return report.publish(
        recipe.name, recipe.gate, folder, work.data, artifacts, measurements, _training_history(folder), _plans(folder)
    )


@dataclass(frozen=True)
class _Work:
    """What every step of one run needs."""

    recipe: Recipe
    folder: RunFolder
    terminal: Terminal
    data: Data
    data_key: str

    def step(self, name: str, inputs: Any, packages: tuple[str, ...], make: Any) -> Path:
        """Do `make(work, folder)` unless the results for these inputs, data and seed are there; return their folder."""
        everything = to_jsonable_python([inputs, self.data_key, self.recipe.seed])
        return self.folder.step(name, everything, packages, partial(make, self))

    def prepared(self, split: str) -> EvalSet:
        """Return the images of a split, resized and cropped; calibration images are drawn when first asked for."""
        count = self.recipe.quantize.calibration_images if self.recipe.quantize else PARITY_IMAGES
        inputs = [self.recipe.preprocessing, count if split == "calibration" else None]
        return evalset.load(self.step(f"images-{split}", inputs, ("pillow",), partial(_prepare_images, split=split)))

    def training_images(self, split: str) -> EvalSet:
        """Return the images of train or val; a stage gets no others."""
        if split not in ("train", "val"):
            raise ValueError(f"a stage may not read the split {split}")
        return self.prepared(split)


def _require_runnable(recipe: Recipe) -> None:
    """Raise before any work where a target can't be measured on this machine."""
    here = environment.detect_instruction_set()
    for target in recipe.targets:
        if target.instruction_set != "auto" and target.instruction_set.split("-")[0] != here.split("-")[0]:
            raise UnavailableError(
                f"target '{target.name}' is {target.instruction_set} and this machine is {here}; run the recipe there"
            )


def _readable_data(recipe: Recipe, folder: RunFolder, terminal: Terminal) -> Data:
    """Load the data set and set aside what can't be decoded, which is looked up once per content."""
    data: Data = plugins.load("data", recipe.data.name).load(recipe.data)
    if not data.test:
        raise InputError("the data set has no test split to measure on; give data.test or data.root")
    if recipe.stages and not (data.train and data.val):
        raise InputError("the stages need the splits train and val; give data.root or data.train")

    def check(step: Path) -> None:
        kept = dataset.set_aside_unreadable(data, recipe.max_unreadable_images, terminal.progress)
        write_json(step / "rejected.json", [asdict(one) for one in kept.rejected])
        for one in kept.rejected:
            terminal.say(f"set aside: {one.reason}")

    step = folder.step("check-images", [data.fingerprint(), recipe.max_unreadable_images], ("pillow",), check)
    rejected = json.loads((step / "rejected.json").read_text())
    return dataset.without(data, tuple(Rejected(**one) for one in rejected))


def _prepare_images(work: _Work, folder: Path, split: str) -> None:
    samples: tuple[Sample, ...] = work.data.split(split)
    if split == "calibration":
        count = work.recipe.quantize.calibration_images if work.recipe.quantize else PARITY_IMAGES
        samples = dataset.draw_calibration(work.data, count, work.recipe.seed)
    dataset.write_evalset(
        folder, samples, work.data.classes, work.recipe.preprocessing,
        lambda done, total: work.terminal.progress(f"prepare {split} images", done, total),
    )  # fmt: skip


def _create_network(work: _Work, folder: Path) -> None:
    from compress import checkpoint, weights

    network = weights.create(work.recipe.model, len(work.data.classes), work.recipe.seed)
    checkpoint.save(folder, network)


def _run_stage(work: _Work, folder: Path, stage: Any, previous: Path, baseline: Path) -> None:
    from compress import checkpoint, weights

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
        progress=work.terminal.progress,
        say=work.terminal.say,
    )
    network = checkpoint.load(previous, work.recipe.model, len(work.data.classes))
    checkpoint.save(folder, plugins.load("stages", stage.stage).run(network, context, stage))


def _device(asked: str) -> str:
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("device: cuda, but torch finds no GPU here; set device: cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _weights_identity(recipe: Recipe) -> Any:
    """Return what tells one local weights file from another."""
    path = Path(recipe.model.weights or "")
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None


def _float32(work: _Work, checkpoint: Path, file_name: str) -> Artifact:
    """Return a checkpoint's network as a float32 artifact."""
    recipe = work.recipe
    inputs = [checkpoint.name, recipe.export, recipe.preprocessing, recipe.name, file_name]
    make = partial(_export_float32, checkpoint=checkpoint, file_name=file_name)
    return Artifact.load(work.step("float32", inputs, EXPORT_PACKAGES, make) / file_name)


def _export_float32(work: _Work, folder: Path, checkpoint: Path, file_name: str) -> None:
    from compress.checkpoint import load
    from compress.training.loop import predict
    from export.parity import require_same
    from export.to_onnx import INPUT_NAME, OUTPUT_NAME, to_onnx

    work.terminal.say("export to ONNX, some 15 seconds")
    recipe, path = work.recipe, folder / file_name
    network = load(checkpoint, recipe.model, len(work.data.classes))
    batch = None if recipe.export.batch == "dynamic" else recipe.export.batch
    exported = to_onnx(network, path, recipe.preprocessing.crop, recipe.export.opset, batch)
    artifact = Artifact(path, Manifest(
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        format="onnx",
        precision="float32",
        input_name=INPUT_NAME,
        input_shape=exported.input_shape,
        output_name=OUTPUT_NAME,
        preprocessing=recipe.preprocessing,
        labels=work.data.classes,
        opset=exported.opset,
        recipe=recipe.name,
        lineage=(
            {"step": "network", **recipe.model.model_dump(mode="json")},
            *({"step": stage.stage, **stage.model_dump(mode="json")} for stage in recipe.stages),
        ),
        versions=environment.package_versions(),
    ))  # fmt: skip
    images = work.prepared("calibration").head(PARITY_IMAGES)
    parity = require_same(
        predict(network, images, "cpu"), evaluate(artifact, _parity_target(artifact), images), path.name
    )
    _with_step(artifact, {"step": "export", "parity_with_torch": asdict(parity)}).save_manifest()


def _int8(work: _Work, float32: Artifact, target: Target, checkpoint: Path) -> Artifact:
    """Return the INT8 artifact for the target's instruction set; targets of one set share it.

    Where latency decides, it is that of the first of them. checkpoint: the last stage's, which may hold learned ranges.
    """
    assert work.recipe.quantize is not None
    scheme = SCHEMES[environment.instruction_set_of(target)]
    first = next(one for one in work.recipe.targets if environment.instruction_set_of(one) == scheme.name)
    inputs = [_origin(float32), work.recipe.quantize, scheme.name, first, environment.describe().for_runtimes()]
    make = partial(_quantize, float32=float32, scheme=scheme, target=first, learned=checkpoint / LEARNED)
    return Artifact.load(work.step(f"int8-{scheme.name}", inputs, QUANTIZATION_PACKAGES, make)
                         / f"model-int8-{scheme.name}.onnx")  # fmt: skip


def _quantize(work: _Work, folder: Path, float32: Artifact, scheme: Scheme, target: Target, learned: Path) -> None:
    from compress.quantization.int8 import make_int8

    assert work.recipe.quantize is not None
    work.terminal.say(f"quantize for {scheme.name}")
    make_int8(
        float32, work.prepared("calibration"), scheme, work.recipe.quantize, target,
        folder / f"model-int8-{scheme.name}.onnx", work.terminal.progress, work.terminal.say,
        work.folder.path / "calibration", _learned_ranges(learned, scheme),
    )  # fmt: skip


def _learned_ranges(path: Path, scheme: Scheme) -> dict[str, tuple[float, float]] | None:
    """Return the ranges that a stage left beside its weights, if it did; they fit schemes of one signedness."""
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    if SCHEMES[content["scheme"]].signed != scheme.signed:
        raise InputError(f"stages: qat trained for {content['scheme']}, a target wants {scheme.name}; set its scheme")
    return {name: (low, high) for name, (low, high) in content["ranges"].items()}


def _self_contained(work: _Work, artifact: Artifact) -> Artifact:
    """Return the artifact as it ships: with normalisation and softmax inside where the recipe asks for that."""
    export = work.recipe.export
    if (export.input, export.output) == ("float32", "logits"):
        return artifact
    inputs = [_origin(artifact), export, artifact.manifest.preprocessing]
    make = partial(_make_self_contained, artifact=artifact)
    return Artifact.load(work.step("self-contained", inputs, EXPORT_PACKAGES, make) / artifact.path.name)


def _make_self_contained(work: _Work, folder: Path, artifact: Artifact) -> None:
    from export.self_contained import self_contained

    export, images = work.recipe.export, work.prepared("calibration").head(PARITY_IMAGES)
    made, parity = self_contained(
        artifact, folder / artifact.path.name, export.input, export.output, images, _parity_target(artifact)
    )
    _with_step(made, {"step": "self-contained", "parity_with_plain": asdict(parity)}).save_manifest()


def _measure(work: _Work, artifacts: list[Artifact], target: Target) -> list[Measurement]:
    """Measure the artifacts interleaved, on the test split, which nothing else reads."""
    images = work.prepared("test")
    inputs = [[_origin(artifact) for artifact in artifacts], target, work.recipe.timing, images.sha256,
              environment.describe().for_runtimes()]  # fmt: skip

    def make(work: _Work, folder: Path) -> None:
        work.terminal.say(f"measure on target '{target.name}'")
        taken = measure(artifacts, target, images, work.recipe.timing, work.terminal.progress)
        write_json(folder / "measurements.json", [measurement.to_json() for measurement in taken])

    folder = work.step(f"measure-{target.name}", inputs, (), make)
    return [Measurement.from_json(fields) for fields in json.loads((folder / "measurements.json").read_text())]


def _write_sample(work: _Work) -> None:
    """Leave some test images for bundles."""
    chosen = work.prepared("test").spread(SAMPLE_IMAGES)
    evalset.write(
        work.folder.path / report.SAMPLE, chosen.images, chosen.labels, chosen.names, chosen.classes,
        chosen.preprocessing,
    )  # fmt: skip


def _origin(artifact: Artifact) -> list[str]:
    """Return what identifies an artifact: its bytes, and the step that made it and its manifest."""
    return [artifact.manifest.sha256, artifact.path.parent.name]


def _parity_target(artifact: Artifact) -> Target:
    return replace(PARITY_TARGET, batch=artifact.manifest.input_shape[0] or 1)


def _with_step(artifact: Artifact, step: dict[str, Any]) -> Artifact:
    return replace(artifact, manifest=replace(artifact.manifest, lineage=(*artifact.manifest.lineage, step)))


def _training_history(folder: RunFolder) -> dict[str, Any]:
    """Return the history of every stage that trained, by its step's name."""
    files = {name: step / "history.json" for name, step in folder.steps.items()}
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}


def _plans(folder: RunFolder) -> dict[str, Any]:
    """Return the plans of every stage that cut, by its step's name, in the order of its rounds."""
    files = {name: sorted(step.glob("plan-*.json")) for name, step in folder.steps.items()}
    return {name: [json.loads(path.read_text()) for path in paths] for name, paths in files.items() if paths}
