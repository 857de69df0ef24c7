"""The report: every artifact on every target against float32, judged by the gate; all else is made of its JSON."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress import __version__
from compress.images.samples import Data
from compress.pipeline.run_folder import RunFolder
from compress.report.accuracy_steps import KINDS, Fall, Flip, falls, flips
from compress.verdict.gate import Check, Gate, Verdict, judge, overall
from compress.verdict.statistics import Estimate, agreement, speedup, top1_drop_pp
from runtimes import environment
from runtimes.artifact import Artifact, manifest_path
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.files import read_json, replacing, write_json
from runtimes.measure import Measurement, upgraded
from runtimes.target import Target

SCHEMA_VERSION = 2
FLOAT32_FILE = "model-float32.onnx"
BASELINE_FILE = "model-baseline.onnx"  # the network before its first stage `prune`
ARTIFACTS, SAMPLE = "artifacts", "sample"  # folders of a run: what ships, and some test images for bundles
FLIPPED = "flipped"  # the folder of images that are answered otherwise, small, by their number in the test split
FLIPS_SHOWN, PICTURE_SIDE = 24, 128
ALWAYS_THERE = (
    "recipe",
    "verdict",
    "confidence",
    "rows",
    "data",
    "training",
    "pruning",
    "artifacts",
    "measurements",
    "environment",
    "durations_s",
    "toolkit_version",
)  # in a report of any version that is read
DEFAULT_CONFIDENCE = 0.95  # of the intervals where the recipe has no gate


@dataclass(frozen=True)
class Row:
    """One artifact on one target against the target's first, float32 before it was cut, which has no drop.

    top1, top1_drop_pp: None where the test images have no labels. agreement: share of them with the baseline's answer.
    val_top1: on the images of val, by which settings may be chosen; of what ships alone, None where there is no val.
    """

    target: str
    artifact: str
    precision: str
    images: int
    top1: float | None
    val_top1: float | None
    top1_drop_pp: Estimate | None
    agreement: Estimate | None
    size_bytes: int
    latency_ms_p50: float
    latency_ms_p90: float | None
    latency_ms_p99: float | None
    speedup_p50: Estimate | None
    checks: tuple[Check, ...]
    verdict: Verdict | None


@dataclass(frozen=True)
class Elsewhere:
    """A file for a target that isn't at hand: nobody measured it.

    why: it was not. no_engine: why none was built here, for TensorRT. int8_layers: of how many weighted layers.
    estimate_ms: from the device's data sheet, None without one; estimate_label says what it is.
    """

    target: dict[str, Any]
    artifact: str
    precision: str
    size_bytes: int
    why: str
    no_engine: str | None
    int8_layers: tuple[int, int] | None
    device: str | None
    estimate_ms: float | None
    estimate_label: str | None


@dataclass(frozen=True)
class Left:
    """What a run leaves besides measurements: histories of training and plans of pruning by step, files elsewhere.

    answers: the class that the network predicted for each test image after each step that changed it. channels: of each
    layer of the float32 file, before it was cut and now. val_top1: of what ships, by target.
    """

    training: dict[str, Any]
    pruning: dict[str, Any]
    elsewhere: tuple[Elsewhere, ...] = ()
    answers: dict[str, list[int]] = field(default_factory=dict)
    channels: dict[str, tuple[int, int]] = field(default_factory=dict)
    val_top1: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What report.json holds. verdict: None without a gate.

    falls: by target, how top-1 changed from step to step. flips: by target, the images that what ships answers
    otherwise than the baseline: how many of each kind, and some of them, which lie in `flipped/`. channels: see `Left`.
    """

    recipe: str
    verdict: Verdict | None
    confidence: float
    rows: tuple[Row, ...]
    data: dict[str, Any]
    training: dict[str, Any]
    pruning: dict[str, Any]
    elsewhere: tuple[Elsewhere, ...]
    falls: dict[str, tuple[Fall, ...]]
    flips: dict[str, dict[str, Any]]
    channels: dict[str, tuple[int, int]]
    artifacts: tuple[dict[str, Any], ...]
    measurements: tuple[dict[str, Any], ...]
    environment: dict[str, Any]
    durations_s: dict[str, float]
    toolkit_version: str = __version__
    schema_version: int = SCHEMA_VERSION


def publish(
    recipe: str,
    gate: Gate | None,
    folder: RunFolder,
    data: Data,
    artifacts: list[Artifact],
    measurements: list[Measurement],
    left: Left,
    images: EvalSet,
) -> Report:
    """Build the report of the recipe of that name, write its documents, and copy the artifacts to artifacts/.

    images: the test split's, in its order.
    """
    from compress.report import documents

    confidence = gate.confidence if gate else DEFAULT_CONFIDENCE
    labels = [sample.label for sample in data.test]
    flipped = {target: flips(taken[0].predicted, taken[-1].predicted, labels)
               for target, taken in _by_target(measurements).items()}  # fmt: skip
    rows = tuple(_rows(measurements, labels, gate, confidence, left.val_top1))
    report = Report(
        recipe=recipe,
        verdict=overall([check for row in rows for check in row.checks]) if gate else None,
        confidence=confidence,
        rows=rows,
        data=_describe(data),
        training=left.training,
        pruning=left.pruning,
        elsewhere=left.elsewhere,
        falls={
            target: falls(_steps(left.answers, taken), labels, confidence)
            for target, taken in _by_target(measurements).items()
            if None not in labels
        },
        flips={target: _told(found, images.names) for target, found in flipped.items()},
        channels=left.channels,
        artifacts=tuple({"file": artifact.path.name, **artifact.manifest.to_json()} for artifact in artifacts),
        measurements=tuple(measurement.to_json() for measurement in measurements),
        environment=asdict(environment.describe()),
        durations_s=folder.durations_s(),
    )
    for artifact in artifacts:
        _copy(artifact, folder.path / ARTIFACTS)
    shown = {flip.index for found in flipped.values() for flip in found[:FLIPS_SHOWN]}
    _write_pictures(folder.path / FLIPPED, images, shown)
    write_json(folder.path / "report.json", asdict(report))
    documents.write(folder.path)
    return report


def read(folder: Path) -> dict[str, Any]:
    """Return the content of a run folder's report.json; raises InputError where there is none that can be read."""
    path = folder / "report.json"
    try:
        report: dict[str, Any] = read_json(path)
        version = report["schema_version"]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; finish the run with: compress run RECIPE --out {folder}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a report ({error}); run the recipe again") from error
    if version not in (1, SCHEMA_VERSION):
        raise InputError(f"{path}: schema version {version}, this toolkit reads 1 and {SCHEMA_VERSION}; "
                         "run the recipe again")  # fmt: skip
    missing = [name for name in ALWAYS_THERE if name not in report]
    if missing:
        raise InputError(f"{path}: not a report (it has no {missing[0]}); run the recipe again")
    try:
        return {**report, "measurements": [upgraded(one) for one in report["measurements"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a report ({error}); run the recipe again") from error


def shipped(folder: Path, target: str | None) -> tuple[Artifact, Target]:
    """Return what a finished run ships to a target, the first unless named: the last of its ONNX files.

    A board builds its TensorRT engine itself.
    """
    content = read(folder)
    measured = [one["target"] | {"artifact": one["artifact"]}
                for one in (*content["measurements"], *content.get("elsewhere", []))]  # fmt: skip
    names = list(dict.fromkeys(one["name"] for one in measured))
    if target not in (None, *names):
        raise InputError(f"{folder}: has no target '{target}'; it has {', '.join(names)}")
    last = [one for one in measured if one["name"] == (target or names[0])][-1]
    name = re.sub(r"-sm\d+\.engine$", ".onnx", last.pop("artifact"))
    artifact = Artifact.load(folder / ARTIFACTS / name)
    return artifact, Target.from_json(last)


def _rows(
    measurements: list[Measurement],
    labels: list[int | None],
    gate: Gate | None,
    confidence: float,
    val_top1: dict[str, float],
) -> list[Row]:
    baseline: Measurement | None = None
    rows = []
    for one, following in zip(measurements, [*measurements[1:], None], strict=True):
        if baseline is None or one.target != baseline.target:
            baseline = one
        ships = following is None or following.target != one.target  # the last of a target is what the gate judges
        drop, same, faster = None, None, None
        checks: tuple[Check, ...] = ()
        if one is not baseline:
            if one.accuracy is not None:
                drop = top1_drop_pp(baseline.predicted, one.predicted, np.asarray(labels), confidence)
            same = agreement(baseline.predicted, one.predicted, confidence)
            faster = speedup(baseline.latency_ms, one.latency_ms, confidence, len(one.timing.shares()))
            checks = judge(gate, drop, same, faster, one.size_bytes / baseline.size_bytes) if gate and ships else ()
        rows.append(Row(
            target=one.target.name,
            artifact=one.artifact,
            precision=one.precision,
            images=len(one.predicted),
            top1=one.accuracy.top1 if one.accuracy else None,
            val_top1=val_top1.get(one.target.name) if ships else None,
            top1_drop_pp=drop,
            agreement=same,
            size_bytes=one.size_bytes,
            latency_ms_p50=one.latency_ms_p50,
            latency_ms_p90=one.latency_ms_p90,
            latency_ms_p99=one.latency_ms_p99,
            speedup_p50=faster,
            checks=checks,
            verdict=overall(list(checks)) if checks else None,
        ))  # fmt: skip
    return rows


def _by_target(measurements: list[Measurement]) -> dict[str, list[Measurement]]:
    found: dict[str, list[Measurement]] = {}
    for one in measurements:
        found.setdefault(one.target.name, []).append(one)
    return found


def _steps(answers: dict[str, list[int]], taken: list[Measurement]) -> list[tuple[str, Sequence[int]]]:
    """Return the way to what ships: the networks, then the files made of the last of them, in the target's runtime."""
    files = [
        (f"{one.precision} in {one.target.runtime}", one.predicted) for one in taken if one.artifact != BASELINE_FILE
    ]
    return [*answers.items(), *files]


def _told(found: list[Flip], names: tuple[str, ...]) -> dict[str, Any]:
    kinds = Counter(flip.kind for flip in found)
    shown = [{**asdict(flip), "kind": flip.kind, "name": names[flip.index]} for flip in found[:FLIPS_SHOWN]]
    return {"counts": {kind: kinds[kind] for kind in KINDS}, "shown": shown}


def _write_pictures(folder: Path, images: EvalSet, indices: set[int]) -> None:
    """Write small JPEGs of those images, in place of any that were there."""
    from PIL import Image

    if folder.exists():
        shutil.rmtree(folder)
    for index in sorted(indices):
        picture = Image.fromarray(images.pixels(np.asarray([index]))[0])
        picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        with replacing(folder / f"{index}.jpg") as temporary:
            picture.save(temporary, format="jpeg", quality=80)


def _describe(data: Data) -> dict[str, Any]:
    counts = {}
    for split in ("train", "val", "test"):
        per_class = Counter(sample.label for sample in data.split(split))
        counts[split] = {name: per_class[label] for label, name in enumerate(data.classes)}
        counts[split] |= {"": per_class[None]} if per_class[None] else {}  # images without labels
    return {
        "classes": data.classes,
        "images_per_class": counts,
        "fingerprint": data.fingerprint(),
        "set_aside": [asdict(one) for one in data.rejected],
    }


def _copy(artifact: Artifact, folder: Path) -> None:
    for source in (artifact.path, manifest_path(artifact.path)):
        with replacing(folder / source.name) as temporary:
            shutil.copyfile(source, temporary)
