"""Values for report.html and report.md: charts, tables of numbers, and images whose prediction changed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.images.synsets import class_names
from compress.process.table import Table
from compress.quantization import tables as quantization_tables
from compress.report import charts
from compress.report import tables as report_tables
from compress.report.accuracy_steps import AccuracyStep, Flip
from compress.report.report import FLIPPED, EpochRecord, Flips, Report, Row
from compress.verdict.checks import Check
from runtimes import conditions
from runtimes.lineage import QuantizedLayer, QuantizeRecord, VerifyRecord, find_record
from runtimes.measure import Measurement
from runtimes.metrics import confusion_rows, images_per_class

MATRIX_CLASSES = 20  # with more classes the most frequent confusions are listed instead
CONFUSIONS_SHOWN, NOISY_LAYERS_SHOWN = 20, 5


@dataclass(frozen=True)
class LayerRow:
    """A weighted layer of the last artifact; None for what is unknown.

    channels_before, channels: output channels before pruning and now. ms, float_ms: of its kernel in this file and in
    the float32 file. sqnr_db: of its output, including the errors of earlier layers.
    """

    name: str
    kind: str
    channels_before: int | None
    channels: int | None
    precision: str
    ms: float | None
    float_ms: float | None
    sqnr_db: float | None


@dataclass(frozen=True)
class ClassRow:
    """One class: number of test images, recall of the baseline and of the last artifact, and more of the latter.

    min_recall: the check of its recall, None without a limit.
    """

    name: str
    images: int
    recall_before: float
    recall: float
    change_pp: float
    precision: float
    f1: float
    min_recall: Check | None


@dataclass(frozen=True)
class Confusion:
    """Confusions of one artifact.

    matrix: one row per true class, None with many classes. most: the most frequent as (true, predicted, images).
    """

    artifact: str
    matrix: list[list[int]] | None
    most: list[tuple[int, int, int]]


@dataclass(frozen=True)
class ShownFlip:
    """A flip with its thumbnail as a data URI, None if the file is missing."""

    flip: Flip
    source: str | None


@dataclass(frozen=True)
class TargetSection:
    """Everything that the documents show of one target. accuracy_chart: None without labels."""

    name: str
    images: int
    table: Table
    latency_chart: str
    conditions: list[str]
    accuracy_chart: str | None
    noisiest: list[LayerRow]
    layers: list[LayerRow]
    flips: Flips | None
    shown_flips: list[ShownFlip]
    classes: list[ClassRow]
    confusions: list[Confusion]

    @property
    def has_min_recall(self) -> bool:
        """True if a class has a limit on its recall."""
        return any(row.min_recall for row in self.classes)


@dataclass(frozen=True)
class Page:
    """Everything that the templates show besides the report and the common tables."""

    names: tuple[str, ...]
    checks: list[tuple[str, Check]]
    gate_notes: list[str]
    targets: list[TargetSection]
    curves: list[str]
    recipe: str


def page(report: Report, folder: Path) -> Page:
    """Return what the templates need; folder: the run's, for recipe.yaml and thumbnails."""
    recipe = folder / "recipe.yaml"
    return Page(
        names=class_names(report.data.classes),
        checks=[(row.target, check) for row in report.rows for check in row.checks],
        gate_notes=[f"{row.target}: {note}" for row in report.rows for note in row.notes],
        targets=[
            _target(report, folder, name, table)
            for name, table in zip(report.targets, report_tables.measured(report), strict=True)
        ],
        curves=[curve for step, epochs in report.training.items() for curve in _training_curves(step, epochs)],
        recipe=recipe.read_text("utf-8") if recipe.exists() else "",
    )


def latency_chart(report: Report, rows: Sequence[Row]) -> str:
    """Return accuracy (or agreement, without labels) against latency of those rows as SVG."""
    several_targets = len({row.target for row in rows}) > 1
    points, baseline = [], 0.0
    for row in rows:
        drop, same, value = row.metric_drop_pp, row.agreement, row.metrics.get(report.metric)
        low, high = None, None
        if value is None:
            y = 100 * (same.value if same else 1.0)
            low, high = (100 * same.low, 100 * same.high) if same else (None, None)
        else:
            y = 100 * value
            baseline = y if drop is None else baseline
            low, high = (baseline - drop.high, baseline - drop.low) if drop else (None, None)
        name = report_tables.label(report, row.artifact, row.precision)
        name = f"{name} on {row.target}" if several_targets else name
        points.append(
            charts.Point(name, row.precision, row.latency_ms_p50, y, row.latency_ms_p90, y_from=low, y_to=high)
        )
    has_metric = report.metric in rows[0].metrics
    y_title = report_tables.METRIC_HEADINGS[report.metric] if has_metric else "predictions unchanged, %"
    return charts.accuracy_latency(f"{report.recipe}: accuracy against latency", points, y_title)


def _target(report: Report, folder: Path, name: str, table: Table) -> TargetSection:
    rows, measurements = report.rows_of(name), report.measurements_of(name)
    layers, flips = _layers(report, measurements[-1].artifact), report.flips.get(name)
    with_noise = [layer for layer in layers if layer.sqnr_db is not None]
    return TargetSection(
        name=name,
        images=rows[0].images,
        table=table,
        latency_chart=latency_chart(report, rows),
        conditions=conditions.lines(measurements),
        accuracy_chart=_accuracy_chart(name, report.accuracy_steps.get(name, ())),
        noisiest=sorted(with_noise, key=lambda layer: layer.sqnr_db or 0.0)[:NOISY_LAYERS_SHOWN],
        layers=layers,
        flips=flips,
        shown_flips=[
            ShownFlip(flip, _data_uri(folder / FLIPPED / f"{flip.index}.jpg"))
            for flip in (flips.shown if flips else ())
        ],
        classes=_classes(report, measurements),
        confusions=[
            _confusion(report, measurement)
            for measurement in (measurements[0], measurements[-1])
            if measurement.accuracy
        ],
    )


def _accuracy_chart(target: str, steps: tuple[AccuracyStep, ...]) -> str | None:
    if not steps:
        return None
    bars, before = [], None
    for step in steps:
        drop, value = step.drop_pp, 100 * step.top1
        note = f"{value:.2f} %"
        if drop:
            note = f"{-drop.value + 0.0:+.2f} ({-drop.high + 0.0:+.2f} to {-drop.low + 0.0:+.2f})"
        bars.append(charts.Bar(step.name, value, before, note))
        before = value
    return charts.waterfall(f"{target}: accuracy by stage", bars)


def _layers(report: Report, artifact: str) -> list[LayerRow]:
    """Return the weighted layers of an artifact, in the network's order."""
    lineage = next((entry.manifest.lineage for entry in report.artifacts if entry.file == artifact), ())
    quantized, verified = find_record(lineage, QuantizeRecord), find_record(lineage, VerifyRecord)
    if quantized is None or quantized.layers is None:
        return [_float_layer(name, *channels) for name, channels in report.channels.items()]
    runs = verified.runs if verified and verified.runs else {}
    times = {precision: quantization_tables.times_by_layer(nodes) for precision, nodes in runs.items()}
    return [_quantized_layer(layer, report.channels.get(layer.name), times) for layer in quantized.layers]


def _float_layer(name: str, channels_before: int, channels: int) -> LayerRow:
    return LayerRow(name, "", channels_before, channels, "float32", ms=None, float_ms=None, sqnr_db=None)


def _quantized_layer(
    layer: QuantizedLayer, channels: tuple[int, int] | None, times: Mapping[str, Mapping[str, float]]
) -> LayerRow:
    before, now = channels or (None, layer.outputs)
    return LayerRow(
        name=layer.name,
        kind=layer.op,
        channels_before=before,
        channels=now,
        precision=f"int{layer.weight_bits}" if layer.precision == "int8" else "float32",
        ms=times.get("int8", {}).get(layer.name),
        float_ms=times.get("float32", {}).get(layer.name),
        sqnr_db=layer.sqnr_db,
    )


def _data_uri(path: Path) -> str | None:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.exists() else None


def _classes(report: Report, measurements: tuple[Measurement, ...]) -> list[ClassRow]:
    before, now = measurements[0].accuracy, measurements[-1].accuracy
    if not before or not now:
        return []
    names = class_names(report.data.classes)
    limits = report_tables.recall_checks(report, measurements[-1])
    images = images_per_class(now.confusion, len(names))
    return [
        ClassRow(
            name=name,
            images=images[index],
            recall_before=before.recall[index],
            recall=now.recall[index],
            change_pp=100 * (now.recall[index] - before.recall[index]),
            precision=now.precision[index],
            f1=now.f1[index],
            min_recall=limits.get(report.data.classes[index]),
        )
        for index, name in enumerate(names)
    ]


def _confusion(report: Report, measurement: Measurement) -> Confusion:
    assert measurement.accuracy is not None
    cells, classes = measurement.accuracy.confusion, len(report.data.classes)
    wrong = sorted(((images, true, predicted) for true, predicted, images in cells if true != predicted), reverse=True)
    return Confusion(
        artifact=report_tables.label(report, measurement.artifact, measurement.precision),
        matrix=confusion_rows(cells, classes) if classes <= MATRIX_CLASSES else None,
        most=[(true, predicted, images) for images, true, predicted in wrong[:CONFUSIONS_SHOWN]],
    )


def _training_curves(step: str, epochs: tuple[EpochRecord, ...]) -> list[str]:
    """Return the charts of one stage: losses, and top-1 on the val split."""
    if not epochs:
        return []
    losses = [charts.Curve("train", "float32", [epoch.train_loss for epoch in epochs]),
              charts.Curve("val", "int8", [epoch.val_loss for epoch in epochs])]  # fmt: skip
    top1 = charts.Curve("val", "int8", [100 * epoch.val_top1 for epoch in epochs])
    return [charts.curves(f"{step}: loss", "loss", losses), charts.curves(f"{step}: top-1", "top-1 %", [top1])]
