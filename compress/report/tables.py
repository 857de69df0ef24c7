"""Tables of a report for the terminal, Markdown and HTML; in the terminal at most 80 columns wide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.process.table import Column, Table
from compress.report.accuracy_steps import AccuracyStep
from compress.report.report import DataDescription, Report, Row, is_baseline
from compress.verdict import checks
from compress.verdict.accuracy import MIN_RECALL
from compress.verdict.checks import Check
from compress.verdict.metrics import NAMES, Metric
from runtimes.errors import InputError
from runtimes.files import read_json
from runtimes.measure import Measurement
from runtimes.metrics import confusion_rows

METRIC_HEADINGS: dict[Metric, str] = {"top1": "top-1 %", "balanced_accuracy": "balanced %", "macro_f1": "macro-F1 %"}
CONFUSION_CLASSES = 20  # most classes for which the columns of the confusion matrix are shown
DATA_CLASSES = 20  # most classes in the table of the data set
VALUES_NOTE = (
    "A change is positive for a gain. A paired speed-up is the mean of the ratios within each session; it differs from "
    "the ratio of two p50 if the speed of the machine varied."
)
BOARD_FILES = "boards/*/measurement.json"  # in a run folder


@dataclass(frozen=True)
class BoardTables:
    """Measurements on boards, one table each. notes: boards whose measurement is not shown and why, one line each."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def measured(report: Report) -> list[Table]:
    """Return one table per measured target, with one row per artifact, the baseline first."""
    return [_of_target(report, target) for target in report.targets]


def label(report: Report, artifact: str, precision: str) -> str:
    """Return what an artifact is called: "baseline", "pruned" for float32 after pruning, else its precision."""
    if is_baseline(artifact) or (precision == "float32" and not report.is_pruned):
        return "baseline"
    return "pruned" if precision == "float32" else precision


def _of_target(report: Report, name: str) -> Table:
    rows, target = report.rows_of(name), report.measurements_of(name)[0].target
    threads = f"{target.threads} thread{'s' if target.threads > 1 else ''}"
    metric = report.metric
    labelled = all(metric in row.metrics for row in rows)
    accuracy = f"{METRIC_HEADINGS[metric]}|change (pp)" if labelled else "same %"
    return Table.of(
        f"{name}: {target.runtime} on {target.provider}, {threads}, batch {target.batch}",
        f"<artifact|{accuracy}|MB|p50 ms|p90|p99|speed-up|<verdict",
        [
            (
                label(report, row.artifact, row.precision),
                *((_percent(row.metrics[metric]), _change(row.metric_drop_pp.value if row.metric_drop_pp else None))
                  if labelled
                  else (_percent(row.agreement.value if row.agreement else None),)),
                _megabytes(row.size_bytes),
                _milliseconds(row.latency_ms_p50),
                _milliseconds(row.latency_ms_p90),
                _milliseconds(row.latency_ms_p99),
                "" if row is rows[0] else _speedup(rows[0].latency_ms_p50, row.latency_ms_p50),
                _verdict(report, row),
            )
            for row in rows
        ],
    )  # fmt: skip


def _verdict(report: Report, row: Row) -> str:
    if row.verdict:
        return row.verdict
    if row.speedup_p50 is None:
        return "baseline"
    return "no gate" if report.verdict is None else "not judged"


def unmeasured(report: Report) -> list[Table]:
    """Return one table per target that was not measured; the title says why."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for file in report.unmeasured:
        title = f"{file.target.name}: not measured, {file.reason}"
        if file.no_engine_reason:
            title += f"; no engine, {file.no_engine_reason}"
        if file.estimate_ms is not None:
            title += f"; {file.device}: {file.estimate_label}"
        layers = file.int8_layers
        groups.setdefault(title, []).append((
            label(report, file.artifact, file.precision),
            _megabytes(file.size_bytes),
            f"{layers[0]} of {layers[1]}" if layers else "-",
            _milliseconds(file.estimate_ms),
        ))  # fmt: skip
    return [Table.of(title, "<artifact|MB|INT8 layers|estimate ms", rows) for title, rows in groups.items()]


def boards(report: Report, folder: Path) -> BoardTables:
    """Return the measurements of a run's artifacts on boards; raises InputError for a file that can't be read.

    The measurement of an artifact that is no longer part of the run is left out and noted.
    """
    current = {artifact.manifest.sha256 for artifact in report.artifacts}
    tables, notes = [], []
    for path in sorted(folder.glob(BOARD_FILES)):
        board = path.parent.name
        measurement, deployed = _board_measurement(path)
        if deployed not in current:
            notes.append(f"boards/{board}: measured an artifact that is no longer part of this run; deploy again")
            continue
        cpu, system = (measurement.environment.get(key, "unknown") for key in ("cpu", "system"))
        target = measurement.target
        tables.append(
            without_comparison([measurement], f"{board}: {target.runtime} on {target.provider}, {cpu}, {system}")
        )
    return BoardTables(tuple(tables), tuple(notes))


def _board_measurement(path: Path) -> tuple[Measurement, str]:
    """Return a measurement on a board and the sha256 of the deployed file, from which a board may build an engine."""
    try:
        fields = dict(read_json(path))
        deployed = fields.pop("deployed_sha256", fields["sha256"])  # older files have no separate key
        return Measurement.from_json(fields), deployed
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: not a measurement ({reason}); deploy the bundle again") from error


def without_comparison(measurements: list[Measurement], title: str = "") -> Table:
    """Return measurements without comparison, one row each."""
    return Table.of(
        title,
        "<artifact|top-1 %|MB|p50 ms|p90|p99|images/s",
        [
            (
                measurement.artifact,
                _percent(measurement.accuracy.top1) if measurement.accuracy else "-",
                _megabytes(measurement.size_bytes),
                _milliseconds(measurement.latency_ms_p50),
                _milliseconds(measurement.latency_ms_p90),
                _milliseconds(measurement.latency_ms_p99),
                f"{measurement.throughput_images_per_s:.0f}",
            )
            for measurement in measurements
        ],
    )


def gate(report: Report) -> Table:
    """Return one row per limit of the gate and target."""
    return Table.of("", "<limit|<target|value|low|high|<verdict", [
        (
            f"{limit_name(report, check)} {check.limit:g}", row.target,
            *checks.shown(check), check.verdict,
        )
        for row in report.rows
        for check in row.checks
    ])  # fmt: skip


def limit_name(report: Report, check: Check) -> str:
    """Return what a limit is called: its key, and the metric if that is not top-1."""
    is_of_metric = check.name in ("max_drop_pp", "min_accuracy") and report.metric != "top1"
    return f"{check.name} ({NAMES[report.metric]})" if is_of_metric else check.name


def recall_checks(report: Report, measurement: Measurement) -> dict[str, Check]:
    """Return the checks of the recall of single classes of an artifact, by class."""
    checks = [check for row in report.rows if (row.target, row.artifact) == (measurement.target.name,
              measurement.artifact) for check in row.checks]  # fmt: skip
    return {check.name.removeprefix(MIN_RECALL): check for check in checks if check.name.startswith(MIN_RECALL)}


def accuracy_by_step(steps: tuple[AccuracyStep, ...]) -> Table:
    """Return one row per step; changes are in percentage points, negative for a loss."""
    rows = []
    for step in steps:
        drop = step.drop_pp
        changes = [_change(drop.value), _change(drop.high), _change(drop.low)] if drop else ["", "", ""]
        rows.append(
            (step.name, _percent(step.top1), *changes, *([str(step.lost), str(step.gained)] if drop else ["", ""]))
        )
    return Table.of("", "<step|top-1 %|change (pp)|low|high|lost|gained", rows)


def per_class(report: Report, measurement: Measurement) -> Table:
    """Return precision, recall and F1 per class, with the confusion matrix if there are few classes.

    Limits on the recall of classes have a column with the limit and its verdict.
    """
    classes = report.data.classes
    accuracy = measurement.accuracy
    if accuracy is None:
        raise ValueError(f"{measurement.artifact}: its test images have no labels")
    predicted = classes if len(classes) <= CONFUSION_CLASSES else ()
    confusion = confusion_rows(accuracy.confusion, len(classes)) if predicted else [[] for _ in classes]
    limits = recall_checks(report, measurement)
    marks = [[f"{limits[name].limit:g}: {limits[name].verdict}" if name in limits else ""] if limits else []
             for name in classes]  # fmt: skip
    headings = ["precision", "recall", "F1", *(["min_recall"] if limits else []),
                *(f"predicted {name}" for name in predicted)]  # fmt: skip
    return Table("", (Column("class", "left"), *map(Column, headings)), tuple(
        (name, *(f"{value:.3f}" for value in metrics), *mark, *map(str, counts))
        for name, *metrics, mark, counts in zip(
            classes, accuracy.precision, accuracy.recall, accuracy.f1, marks, confusion, strict=True
        )
    ))  # fmt: skip


def data_splits(data: DataDescription) -> Table:
    """Return the number of images per split, for the first classes and in total."""
    classes = data.classes[:DATA_CLASSES]
    columns = (Column("split", "left"), *map(Column, (*classes, "all")))
    return Table("", columns, tuple(
        (split, *(str(counts.get(name, 0)) for name in classes), str(sum(counts.values())))
        for split, counts in data.images_per_class.items()
    ))  # fmt: skip


def durations(report: Report) -> Table:
    """Return the seconds that each step took."""
    return Table.of("", "<step|seconds", [(name, f"{seconds:.1f}") for name, seconds in report.durations_s.items()])


def _change(drop_pp: float | None) -> str:
    return "" if drop_pp is None else f"{-drop_pp + 0.0:+.2f}"  # no -0.00


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f}"


def _milliseconds(value: float | None) -> str:
    """Return a latency with at least three digits from 0.1 ms on, "-" for None."""
    return "-" if value is None else f"{value:.{3 if value < 10 else 2}f}"


def _speedup(baseline_ms: float, latency_ms: float) -> str:
    """Return the ratio of two latencies as the table shows them, so that a reader gets the same quotient."""
    return f"{float(_milliseconds(baseline_ms)) / max(float(_milliseconds(latency_ms)), 0.001):.2f}x"
