"""Build the report of a finished run: compare artifacts with the baseline and apply the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from compress.images.samples import Data
from compress.pruning.plans import PruningPlan
from compress.report.accuracy_steps import FLIP_KINDS, Flip, accuracy_steps, flips
from compress.report.report import (
    ArtifactFile,
    DataDescription,
    EpochRecord,
    Flips,
    Report,
    Row,
    UnmeasuredFile,
    is_baseline,
)
from compress.verdict.gate import Check, Gate, judge, overall
from compress.verdict.statistics import agreement, speedup, top1_drop_pp
from runtimes.artifact import Artifact
from runtimes.environment import Environment
from runtimes.evalset import EvalSet
from runtimes.measure import Measurement

DEFAULT_CONFIDENCE = 0.95  # of intervals if the recipe has no gate
FLIPS_SHOWN = 24


@dataclass(frozen=True)
class RunOutputs:
    """The results of a finished run, from which its report is built.

    images: the preprocessed test split, in its order. measurements: by target, the baseline first. training: epochs by
    step name. pruning: plans by step name. predictions: predicted class of each test image after each step
    that changed the network. channels: output channels of each layer before pruning and now. val_top1: top-1 on the val
    split of the last artifact of each target. durations_s: by step name. notes: what was replaced, left out or decided
    for the user, one line each.
    """

    recipe: str
    gate: Gate | None
    data: Data
    images: EvalSet
    artifacts: Sequence[Artifact]
    measurements: Sequence[Measurement]
    environment: Environment
    durations_s: Mapping[str, float]
    unmeasured: Sequence[UnmeasuredFile] = ()
    training: Mapping[str, Sequence[EpochRecord]] = field(default_factory=dict)
    pruning: Mapping[str, Sequence[PruningPlan]] = field(default_factory=dict)
    predictions: Mapping[str, Sequence[int]] = field(default_factory=dict)
    channels: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    val_top1: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def labels(self) -> list[int | None]:
        """The class of each test image, None if unknown."""
        return [sample.label for sample in self.data.test]

    @property
    def confidence(self) -> float:
        """The confidence of all intervals."""
        return self.gate.confidence if self.gate else DEFAULT_CONFIDENCE

    def by_target(self) -> dict[str, list[Measurement]]:
        """Return the measurements by target name, in order."""
        groups: dict[str, list[Measurement]] = {}
        for measurement in self.measurements:
            groups.setdefault(measurement.target.name, []).append(measurement)
        return groups


def build(outputs: RunOutputs) -> Report:
    """Return the report of a run; reads and writes no files."""
    labels, groups = outputs.labels, outputs.by_target()
    rows = [row for measurements in groups.values() for row in _rows(outputs, measurements)]
    return Report(
        recipe=outputs.recipe,
        verdict=overall([check for row in rows for check in row.checks]) if outputs.gate else None,
        confidence=outputs.confidence,
        rows=tuple(rows),
        data=_describe(outputs.data),
        training={step: tuple(epochs) for step, epochs in outputs.training.items()},
        pruning={step: tuple(plans) for step, plans in outputs.pruning.items()},
        unmeasured=tuple(outputs.unmeasured),
        accuracy_steps={
            target: accuracy_steps(_steps(outputs.predictions, measurements), labels, outputs.confidence)
            for target, measurements in groups.items()
            if None not in labels
        },
        flips={
            target: _summary(flips(measurements[0].predicted, measurements[-1].predicted, labels, outputs.images.names))
            for target, measurements in groups.items()
        },
        channels=dict(outputs.channels),
        artifacts=tuple(ArtifactFile(artifact.path.name, artifact.manifest) for artifact in outputs.artifacts),
        measurements=tuple(measurement for measurements in groups.values() for measurement in measurements),
        environment=outputs.environment,
        durations_s=dict(outputs.durations_s),
        notes=tuple(outputs.notes),
    )


def _rows(outputs: RunOutputs, measurements: list[Measurement]) -> list[Row]:
    """Return the rows of one target; the gate judges its last artifact."""
    baseline, last = measurements[0], measurements[-1]
    return [_baseline_row(outputs, baseline, is_last=baseline is last)] + [
        _compared_row(outputs, baseline, measurement, is_last=measurement is last) for measurement in measurements[1:]
    ]


def _baseline_row(outputs: RunOutputs, baseline: Measurement, is_last: bool) -> Row:
    return Row(
        target=baseline.target.name,
        artifact=baseline.artifact,
        precision=baseline.precision,
        images=len(baseline.predicted),
        top1=baseline.accuracy.top1 if baseline.accuracy else None,
        val_top1=outputs.val_top1.get(baseline.target.name) if is_last else None,
        top1_drop_pp=None,
        agreement=None,
        size_bytes=baseline.size_bytes,
        latency_ms_p50=baseline.latency_ms_p50,
        latency_ms_p90=baseline.latency_ms_p90,
        latency_ms_p99=baseline.latency_ms_p99,
        speedup_p50=None,
        checks=(),
        verdict=None,
    )


def _compared_row(outputs: RunOutputs, baseline: Measurement, measurement: Measurement, is_last: bool) -> Row:
    confidence, drop = outputs.confidence, None
    if measurement.accuracy is not None:
        drop = top1_drop_pp(baseline.predicted, measurement.predicted, np.asarray(outputs.labels), confidence)
    same = agreement(baseline.predicted, measurement.predicted, confidence)
    sessions = len(measurement.timing.blocks_per_session())
    faster = speedup(baseline.latency_ms, measurement.latency_ms, confidence, sessions)
    checks: tuple[Check, ...] = ()
    if outputs.gate and is_last:
        checks = judge(outputs.gate, drop, same, faster, measurement.size_bytes / baseline.size_bytes)
    return replace(
        _baseline_row(outputs, measurement, is_last),
        top1_drop_pp=drop,
        agreement=same,
        speedup_p50=faster,
        checks=checks,
        verdict=overall(list(checks)) if checks else None,
    )


def _steps(
    predictions: Mapping[str, Sequence[int]], measurements: list[Measurement]
) -> list[tuple[str, Sequence[int]]]:
    """Return name and predictions of each network, then of each file that was made of the last network."""
    files = [
        (f"{measurement.precision} in {measurement.target.runtime}", measurement.predicted)
        for measurement in measurements
        if not is_baseline(measurement.artifact)
    ]
    return [*predictions.items(), *files]


def _summary(changed: Sequence[Flip]) -> Flips:
    kinds = Counter(flip.kind for flip in changed)
    return Flips({kind: kinds[kind] for kind in FLIP_KINDS}, tuple(changed[:FLIPS_SHOWN]))


def _describe(data: Data) -> DataDescription:
    counts, folders = data.images_per_class(), dict(data.folders)
    return DataDescription(data.classes, counts, data.fingerprint(), data.rejected, data.left_out, folders)
