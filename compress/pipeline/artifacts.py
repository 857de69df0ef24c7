"""The artifacts of a run: float32, float16 and INT8 files and engines for each target.

Modules that import torch or onnx are imported by the steps that need them: both take seconds, and a run whose steps are
cached needs neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from compress.pipeline.images import SplitImages
from compress.pipeline.networks import Checkpoint
from compress.pipeline.steps import TRAINING_PACKAGES, Step, Steps, step_options
from compress.quantization.config import Quantize
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES, scheme_for
from compress.recipe import plugins
from compress.recipe.recipe import Export, Recipe
from compress.report.report import UnmeasuredFile
from export.scheme import Scheme
from runtimes import engine
from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, InputError
from runtimes.files import Json
from runtimes.lineage import ExportRecord, NetworkRecord, StageRecord
from runtimes.measure import evaluate
from runtimes.target import Target

Ranges: TypeAlias = dict[str, tuple[float, float]]

PARITY_TARGET = Target("parity", threads=2)
PARITY_IMAGES = 64


@dataclass(frozen=True)
class Builder:
    """Builds artifacts by cached steps. images: for calibration; their first ones check exported files."""

    steps: Steps
    recipe: Recipe
    images: SplitImages

    def float32(self, checkpoint: Checkpoint, file_name: str) -> Artifact:
        """Return a network as a float32 ONNX file."""
        folder = self.steps.run(
            export_float32, file_name.removesuffix(".onnx").removeprefix("model-"), checkpoint=checkpoint,
            settings=self.recipe.export, images=self.images, recipe_name=self.recipe.name, file_name=file_name,
        )  # fmt: skip
        return _load(folder / file_name)

    def onnx_files(
        self, baseline: Artifact | None, float32: Artifact, network: Checkpoint, target: Target
    ) -> list[Artifact]:
        """Return the ONNX files for a target in the order of the report: baseline first, the deployed file last.

        GPUs get float16, too; the float layers of an INT8 file for TensorRT are float16.
        """
        files = [self._self_contained(artifact) for artifact in (baseline, float32) if artifact]
        if target.provider == "cuda":
            files.append(self._float16(files[-1], "model-float16.onnx"))
        if self.recipe.quantize and (target.provider == "cpu" or target.runtime == "trt"):
            int8 = self._self_contained(self._int8(self.recipe.quantize, float32, network, target))
            files.append(self._float16(int8, int8.path.name) if target.runtime == "trt" else int8)
        return files

    def engines(self, files: list[Artifact], target: Target) -> list[Artifact]:
        """Return the TensorRT engines of ONNX files for a target."""
        engines = []
        for artifact in files:
            build = engine.build_for(artifact, target)
            file_name = f"{artifact.path.stem}-sm{build.compute_capability.replace('.', '')}.engine"
            name = f"engine-{target.name}-{artifact.manifest.precision}"
            folder = self.steps.run(
                build_engine, name, artifact=artifact, target=target, build=build, file_name=file_name
            )
            engines.append(_load(folder / file_name))
        return engines

    def unmeasured(
        self, files: list[Artifact], target: Target, reason: str
    ) -> tuple[list[UnmeasuredFile], list[Artifact]]:
        """Return rows for the files of a target that is not on this machine, and the artifacts to deploy there.

        Engines are built here if TensorRT can; else the board builds them from the ONNX files.
        """
        engines: list[Artifact] = []
        no_engine = None
        if target.runtime == "trt":
            no_engine = engine.why_not_built(target)
            engines = [] if no_engine else self.engines(files, target)
            self.steps.console.say(f"{target.name}: not measured, {reason}; {no_engine or 'engines are built'}")
        rows = []
        for index, file in enumerate(files):
            artifact = engines[index] if engines else file
            rows.append(UnmeasuredFile(
                target=target, artifact=artifact.path.name, precision=artifact.manifest.precision,
                size_bytes=artifact.manifest.size_bytes, reason=reason, no_engine_reason=no_engine,
                int8_layers=engine.int8_layers(artifact.manifest) if engines else None,
                **_estimated(file, target),
            ))  # fmt: skip
        return rows, [*files, *engines]

    def _int8(self, settings: Quantize, float32: Artifact, network: Checkpoint, target: Target) -> Artifact:
        """Return the INT8 file for the target's scheme; targets of one scheme share it.

        Latency, where a decision depends on it, is measured on the first of them.
        """
        scheme = scheme_for(target)
        first = next(item for item in self.recipe.targets if scheme_for(item) == scheme)
        folder = self.steps.run(
            quantize, f"int8-{scheme.name}", float32=float32, settings=settings, target=first, images=self.images,
            learned=_learned_ranges(network, scheme),
        )  # fmt: skip
        return _load(folder / int8_file(scheme))

    def _float16(self, artifact: Artifact, file_name: str) -> Artifact:
        folder = self.steps.run(
            convert_to_float16, "float16", artifact=artifact, images=self.images, file_name=file_name
        )
        return _load(folder / file_name)

    def _self_contained(self, artifact: Artifact) -> Artifact:
        """Return the artifact with normalization and softmax inside where the recipe asks for that."""
        settings = self.recipe.export
        if (settings.input, settings.output) == ("float32", "logits"):
            return artifact
        folder = self.steps.run(
            make_self_contained, "self-contained", artifact=artifact, settings=settings, images=self.images
        )
        return _load(folder / artifact.path.name)


@step_options((*TRAINING_PACKAGES, "onnx", "onnxscript", "onnxruntime"))
def export_float32(
    step: Step, checkpoint: Checkpoint, settings: Export, images: SplitImages, recipe_name: str, file_name: str
) -> None:
    """Write a checkpoint's network as a float32 ONNX file whose outputs equal torch's on some images."""
    # torch and onnx: see the module's docstring
    from compress.training.loop import predict
    from export.parity import require_same
    from export.to_onnx import to_onnx

    step.console.say("export to ONNX, a few seconds")
    path, network, preprocessing = step.folder / file_name, checkpoint.load(), images.preprocessing
    batch = None if settings.batch == "dynamic" else settings.batch
    exported = to_onnx(network, path, preprocessing.input_shape, settings.opset, batch)
    lineage = (
        NetworkRecord(plugins.described(checkpoint.model)),
        *(StageRecord(plugins.described(stage)) for stage in checkpoint.stages),
    )
    artifact = exported.artifact(preprocessing, images.source.data.classes, recipe_name, lineage)
    head = images.load().head(PARITY_IMAGES)
    parity = require_same(predict(network, head, "cpu"), evaluate(artifact, _parity_target(artifact), head), path.name)
    artifact.with_record(ExportRecord(parity)).save_manifest()


def quantize(
    step: Step, float32: Artifact, settings: Quantize, target: Target, images: SplitImages, learned: Ranges | None
) -> None:
    """Write the INT8 file of a target's scheme. learned: activation ranges, instead of calibrated ones."""
    from compress.quantization.int8 import make_int8  # imports onnx

    scheme = scheme_for(target)
    step.console.say(f"quantize for {scheme.name}")
    request = QuantizationRequest(images.load(), scheme, settings, step.console, step.cache / "calibration", learned)
    make_int8(float32, target, request, step.folder / int8_file(scheme))


@step_options((*TRAINING_PACKAGES, "onnx", "onnxruntime"))
def convert_to_float16(step: Step, artifact: Artifact, images: SplitImages, file_name: str) -> None:
    """Write a file's counterpart in half precision."""
    from export.float16 import to_float16  # imports onnx

    head = images.load().head(PARITY_IMAGES)
    to_float16(artifact, step.folder / file_name, head, _parity_target(artifact))


@step_options((*TRAINING_PACKAGES, "onnx", "onnxruntime"))
def make_self_contained(step: Step, artifact: Artifact, settings: Export, images: SplitImages) -> None:
    """Write a file's counterpart that takes pixels or returns probabilities."""
    from export.self_contained import self_contained  # imports onnx

    head = images.load().head(PARITY_IMAGES)
    self_contained(
        artifact, step.folder / artifact.path.name, settings.input, settings.output, head, _parity_target(artifact)
    )


def build_engine(step: Step, artifact: Artifact, target: Target, build: engine.Build, file_name: str) -> None:
    """Write the TensorRT engine of an ONNX file. build: what `runtimes.engine` builds, part of the key."""
    from export.to_trt import to_trt  # imports onnx

    timing_cache = step.cache / "timing" / f"{target.name}.cache"
    to_trt(artifact, target, step.folder / file_name, step.console, timing_cache)


def _load(path: Path) -> Artifact:
    """Return a step's artifact; raises ArtifactError with its cure if a file was changed after the step."""
    try:
        return Artifact.load(path)
    except ArtifactError as error:
        raise ArtifactError(
            f"{path.parent}: a file of this step is damaged or was changed ({path.name}); delete this folder and run "
            "the same command again"
        ) from error


def int8_file(scheme: Scheme) -> str:
    """Return the name of a scheme's INT8 file."""
    return f"model-int8-{scheme.name}.onnx"


def _learned_ranges(network: Checkpoint, scheme: Scheme) -> Ranges | None:
    """Return the ranges that a stage learned, if one did; they fit schemes of the same signedness."""
    learned = network.learned_ranges()
    if learned is None:
        return None
    if SCHEMES[learned["scheme"]].signed != scheme.signed:
        raise InputError(f"stages: qat trained for {learned['scheme']}, a target needs {scheme.name}; set its scheme")
    return {name: (low, high) for name, (low, high) in learned["ranges"].items()}


def _estimated(artifact: Artifact, target: Target) -> Json:
    """Return the fields of a row that hold an estimate from the target's data sheet."""
    from export.estimate import LABEL, estimate  # imports onnx

    if target.datasheet is None:
        return {"device": None, "estimate_ms": None, "estimate_label": None}
    precision = artifact.manifest.precision
    rest = "float16" if precision == "int8" and target.runtime == "trt" else "float32"
    estimated = estimate(artifact, target, rest if precision == "int8" else precision)  # type: ignore[arg-type]
    return {"device": target.datasheet.device, "estimate_ms": estimated.latency_ms, "estimate_label": LABEL}


def _parity_target(artifact: Artifact) -> Target:
    return replace(PARITY_TARGET, batch=artifact.manifest.input_shape[0] or 1)
