"""Build the report of a finished run: compare artifacts with the baseline and apply the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import numpy.typing as npt

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
from compress.verdict import metrics
from compress.verdict.accuracy import Predictions
from compress.verdict.checks import overall
from compress.verdict.gate import Gate, judge
from compress.verdict.metrics import Metric
from compress.verdict.statistics import Estimate, agreement, speedup
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
    that changed the network. channels: output channels of each layer before pruning and now. val_metrics: of the last
    artifact of each target on the val split. durations_s: by step name. notes: what was replaced, left out or decided
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
    val_metrics: Mapping[str, Mapping[Metric, Estimate]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def labels(self) -> list[int | None]:
        """The class of each test image, None if unknown."""
        return [sample.label for sample in self.data.test]

    @property
    def known_labels(self) -> npt.NDArray[np.int64] | None:
        """The class of each test image, None if any is unknown."""
        return None if None in self.labels else np.asarray(self.labels, np.int64)

    @property
    def metric(self) -> Metric:
        """The metric of the gate."""
        return self.gate.metric if self.gate else "top1"

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
        notes=(*outputs.notes, *_not_judged(outputs)),
        metric=outputs.metric,
    )


def _not_judged(outputs: RunOutputs) -> list[str]:
    """Return one line for each target that the gate does not judge."""
    names = dict.fromkeys(file.target.name for file in outputs.unmeasured) if outputs.gate else {}
    return [f"gate: target '{name}' is not judged, because it is not measured here" for name in names]


def _rows(outputs: RunOutputs, measurements: list[Measurement]) -> list[Row]:
    """Return the rows of one target; the gate judges its last artifact."""
    baseline, last = measurements[0], measurements[-1]
    rows = [_row(outputs, baseline)] + [_compared_row(outputs, baseline, other) for other in measurements[1:]]
    return [*rows[:-1], _judged_row(outputs, rows[-1], baseline, last)]


def _row(outputs: RunOutputs, measurement: Measurement) -> Row:
    """Return the row of one artifact without comparison and verdict."""
    labels, predicted = outputs.known_labels, measurement.predicted
    return Row(
        target=measurement.target.name,
        artifact=measurement.artifact,
        precision=measurement.precision,
        images=len(predicted),
        top1=measurement.accuracy.top1 if measurement.accuracy else None,
        metrics={} if labels is None else {name: metrics.value(name, predicted, labels) for name in get_args(Metric)},
        val_metrics={},
        top1_drop_pp=None,
        metric_drop_pp=None,
        agreement=None,
        size_bytes=measurement.size_bytes,
        latency_ms_p50=measurement.latency_ms_p50,
        latency_ms_p90=measurement.latency_ms_p90,
        latency_ms_p99=measurement.latency_ms_p99,
        speedup_p50=None,
        checks=(),
        verdict=None,
    )


def _compared_row(outputs: RunOutputs, baseline: Measurement, measurement: Measurement) -> Row:
    confidence, labels = outputs.confidence, outputs.known_labels
    drops: dict[Metric, Estimate] = {}
    if labels is not None:
        drops = {
            name: metrics.drop_pp(name, baseline.predicted, measurement.predicted, labels, confidence)
            for name in {"top1", outputs.metric}
        }
    sessions = len(measurement.timing.blocks_per_session())
    return replace(
        _row(outputs, measurement),
        top1_drop_pp=drops.get("top1"),
        metric_drop_pp=drops.get(outputs.metric),
        agreement=agreement(baseline.predicted, measurement.predicted, confidence),
        speedup_p50=speedup(baseline.latency_ms, measurement.latency_ms, confidence, sessions),
    )


def _judged_row(outputs: RunOutputs, row: Row, baseline: Measurement, last: Measurement) -> Row:
    """Return the row of a target's last artifact with its metrics on val and the verdict of the gate."""
    val = outputs.val_metrics.get(row.target, {})
    row = replace(
        row,
        val_metrics={name: estimate.value for name, estimate in val.items()},
        val_bounds={name: (estimate.low, estimate.high) for name, estimate in val.items()},
    )
    if outputs.gate is None:
        return row
    before = None if baseline is last else np.asarray(baseline.predicted)
    predictions = Predictions(before, np.asarray(last.predicted), outputs.known_labels, outputs.data.classes)
    ratio = None if baseline is last else last.size_bytes / baseline.size_bytes
    judged = judge(outputs.gate, predictions, row.speedup_p50, ratio)
    notes = (*(drop.line() for drop in judged.collapsed), *judged.notes)
    return replace(
        row, checks=judged.checks, verdict=overall(list(judged.checks)) if judged.checks else None, notes=notes
    )


def _steps(
    predictions: Mapping[str, Sequence[int]], measurements: list[Measurement]
) -> list[tuple[str, Sequence[int]]]:
    """Return name and predictions of each network, then of each file that was made of the last network."""
    is_pruned = any(is_baseline(measurement.artifact) for measurement in measurements)
    names = {"float32": "pruned" if is_pruned else "baseline"}
    files = [
        (f"{names.get(measurement.precision, measurement.precision)} in {measurement.target.runtime}",
         measurement.predicted)
        for measurement in measurements
        if not is_baseline(measurement.artifact)
    ]  # fmt: skip
    return [*predictions.items(), *files]


def _summary(changed: Sequence[Flip]) -> Flips:
    kinds = Counter(flip.kind for flip in changed)
    return Flips({kind: kinds[kind] for kind in FLIP_KINDS}, tuple(changed[:FLIPS_SHOWN]))


def _describe(data: Data) -> DataDescription:
    counts, folders = data.images_per_class(), dict(data.folders)
    return DataDescription(data.classes, counts, data.fingerprint(), data.rejected, data.left_out, folders)
