"""What ships to a target: float32, float16 and INT8 files, engines, and an estimate where the target isn't here."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from compress.pipeline.steps import PARITY_IMAGES, TRAINING_PACKAGES, Work, origin
from compress.quantization.config import LEARNED
from compress.quantization.schemes import SCHEMES, scheme_for
from compress.report.report import UnmeasuredFile
from export.scheme import Scheme
from runtimes import engine, environment
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.lineage import ExportRecord, NetworkRecord, StageRecord
from runtimes.measure import evaluate
from runtimes.target import Target

PARITY_TARGET = Target("parity", threads=2)
EXPORT_PACKAGES = (*TRAINING_PACKAGES, "onnx", "onnxscript", "onnxruntime", "numpy")
QUANTIZATION_PACKAGES = ("onnx", "onnxruntime", "numpy", "nncf")


def onnx_files(
    work: Work, before: list[Artifact], float32: Artifact, checkpoint: Path, target: Target
) -> list[Artifact]:
    """Return the ONNX files for a target, in the order of the report: float32 first, what ships last.

    before: of the network before it was cut. checkpoint: the last stage's, which may hold learned ranges. GPUs get
    float16, too; what an INT8 file for TensorRT does not quantize is float16.
    """
    files = [_self_contained(work, one) for one in (*before, float32)]
    if target.provider == "cuda":
        files.append(_half(work, files[-1], "model-float16.onnx"))
    if work.recipe.quantize and (target.provider == "cpu" or target.runtime == "trt"):
        int8 = _self_contained(work, _int8(work, float32, target, checkpoint))
        files.append(_half(work, int8, int8.path.name) if target.runtime == "trt" else int8)
    return files


def engines(work: Work, files: list[Artifact], target: Target) -> list[Artifact]:
    """Return the TensorRT engines of ONNX files for a target, built where they are not there yet."""
    wanted = [engine.build_for(one, target) for one in files]
    return [
        Artifact.load(
            work.step(
                f"engine-{target.name}", [origin(one), asdict(build)], (), partial(_build, artifact=one, target=target)
            )
            / _engine_name(one, build.compute_capability)
        )
        for one, build in zip(files, wanted, strict=True)
    ]


def elsewhere(
    work: Work, files: list[Artifact], target: Target, why: str
) -> tuple[list[UnmeasuredFile], list[Artifact]]:
    """Return what can be said of files for a target that isn't at hand, and what ships there.

    Engines are built here where that is possible; else the board builds them from the ONNX files.
    """
    built: list[Artifact] = []
    no_engine = None
    if target.runtime == "trt":
        no_engine = engine.why_not_built(target)
        built = [] if no_engine else engines(work, files, target)
        work.terminal.say(f"{target.name}: not measured, {why}; {no_engine or 'engines are built'}")
    rows = []
    for index, one in enumerate(files):
        ships = built[index] if built else one
        rows.append(UnmeasuredFile(
            target=target, artifact=ships.path.name, precision=ships.manifest.precision,
            size_bytes=ships.manifest.size_bytes, reason=why, no_engine_reason=no_engine,
            int8_layers=engine.int8_layers(ships.manifest) if built else None,
            **_estimated(one, target),
        ))  # fmt: skip
    return rows, [*files, *built] if built else files


def _estimated(artifact: Artifact, target: Target) -> dict[str, Any]:
    from export.estimate import LABEL, estimate

    if target.datasheet is None:
        return {"device": None, "estimate_ms": None, "estimate_label": None}
    precision = artifact.manifest.precision
    rest = "float16" if precision == "int8" and target.runtime == "trt" else "float32"
    found = estimate(artifact, target, rest if precision == "int8" else precision)  # type: ignore[arg-type]
    return {"device": target.datasheet.device, "estimate_ms": found.latency_ms, "estimate_label": LABEL}


def _build(work: Work, folder: Path, artifact: Artifact, target: Target) -> None:
    from export.to_trt import to_trt

    capability = engine.build_for(artifact, target).compute_capability
    cache = work.folder.cache / "timing" / f"{target.name}.cache"
    to_trt(artifact, target, folder / _engine_name(artifact, capability), work.terminal, cache)


def _engine_name(artifact: Artifact, compute_capability: str) -> str:
    return f"{artifact.path.stem}-sm{compute_capability.replace('.', '')}.engine"


def _half(work: Work, artifact: Artifact, file_name: str) -> Artifact:
    """Return a file's twin in half precision."""
    make = partial(_make_half, artifact=artifact, file_name=file_name)
    return Artifact.load(work.step("half", [origin(artifact), file_name], EXPORT_PACKAGES, make) / file_name)


def _make_half(work: Work, folder: Path, artifact: Artifact, file_name: str) -> None:
    from export.float16 import to_float16

    images = work.prepared("calibration").head(PARITY_IMAGES)
    to_float16(artifact, folder / file_name, images, _parity_target(artifact))


def float32_file(work: Work, checkpoint: Path, file_name: str) -> Artifact:
    """Return a checkpoint's network as a float32 artifact."""
    recipe = work.recipe
    inputs = [checkpoint.name, recipe.export, recipe.preprocessing, recipe.name, file_name]
    make = partial(_export_float32, checkpoint=checkpoint, file_name=file_name)
    return Artifact.load(work.step("float32", inputs, EXPORT_PACKAGES, make) / file_name)


def _export_float32(work: Work, folder: Path, checkpoint: Path, file_name: str) -> None:
    from compress.networks.checkpoint import load
    from compress.training.loop import predict
    from export.parity import require_same
    from export.to_onnx import to_onnx

    work.terminal.say("export to ONNX, some 15 seconds")
    recipe, path = work.recipe, folder / file_name
    network = load(checkpoint, recipe.model, len(work.data.classes))
    batch = None if recipe.export.batch == "dynamic" else recipe.export.batch
    exported = to_onnx(network, path, recipe.preprocessing.crop, recipe.export.opset, batch)
    lineage = (
        NetworkRecord(recipe.model.model_dump(mode="json")),
        *(StageRecord(stage.model_dump(mode="json")) for stage in recipe.stages),
    )
    artifact = exported.artifact(recipe.preprocessing, work.data.classes, recipe.name, lineage)
    images = work.prepared("calibration").head(PARITY_IMAGES)
    parity = require_same(
        predict(network, images, "cpu"), evaluate(artifact, _parity_target(artifact), images), path.name
    )
    artifact.with_record(ExportRecord(parity)).save_manifest()


def _int8(work: Work, float32: Artifact, target: Target, checkpoint: Path) -> Artifact:
    """Return the INT8 artifact for the target's scheme; targets of one scheme share it.

    Where latency decides, it is that of the first of them. checkpoint: the last stage's, which may hold learned ranges.
    """
    assert work.recipe.quantize is not None
    scheme = scheme_for(target)
    first = next(one for one in work.recipe.targets if scheme_for(one) == scheme)
    inputs = [origin(float32), work.recipe.quantize, scheme.name, first, environment.describe().for_runtimes()]
    make = partial(_quantize, float32=float32, scheme=scheme, target=first, learned=checkpoint / LEARNED)
    return Artifact.load(work.step(f"int8-{scheme.name}", inputs, QUANTIZATION_PACKAGES, make)
                         / f"model-int8-{scheme.name}.onnx")  # fmt: skip


def _quantize(work: Work, folder: Path, float32: Artifact, scheme: Scheme, target: Target, learned: Path) -> None:
    from compress.quantization.int8 import make_int8
    from compress.quantization.request import QuantizationRequest

    assert work.recipe.quantize is not None
    work.terminal.say(f"quantize for {scheme.name}")
    request = QuantizationRequest(
        work.prepared("calibration"), scheme, work.recipe.quantize, work.terminal, work.folder.cache / "calibration",
        _learned_ranges(learned, scheme),
    )  # fmt: skip
    make_int8(float32, target, request, folder / f"model-int8-{scheme.name}.onnx")


def _learned_ranges(path: Path, scheme: Scheme) -> dict[str, tuple[float, float]] | None:
    """Return the ranges that a stage left beside its weights, if it did; they fit schemes of one signedness."""
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    if SCHEMES[content["scheme"]].signed != scheme.signed:
        raise InputError(f"stages: qat trained for {content['scheme']}, a target wants {scheme.name}; set its scheme")
    return {name: (low, high) for name, (low, high) in content["ranges"].items()}


def _self_contained(work: Work, artifact: Artifact) -> Artifact:
    """Return the artifact as it ships: with normalisation and softmax inside where the recipe asks for that."""
    export = work.recipe.export
    if (export.input, export.output) == ("float32", "logits"):
        return artifact
    inputs = [origin(artifact), export, artifact.manifest.preprocessing]
    make = partial(_make_self_contained, artifact=artifact)
    return Artifact.load(work.step("self-contained", inputs, EXPORT_PACKAGES, make) / artifact.path.name)


def _make_self_contained(work: Work, folder: Path, artifact: Artifact) -> None:
    from export.self_contained import self_contained

    export, images = work.recipe.export, work.prepared("calibration").head(PARITY_IMAGES)
    self_contained(artifact, folder / artifact.path.name, export.input, export.output, images, _parity_target(artifact))


def _parity_target(artifact: Artifact) -> Target:
    return replace(PARITY_TARGET, batch=artifact.manifest.input_shape[0] or 1)
