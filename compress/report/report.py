"""The report of a run as typed records, and reading it from report.json."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from compress import __version__
from compress.images.samples import LeftOut, Rejected, data_notes
from compress.pruning.plans import PruningPlan
from compress.report import schema
from compress.report.accuracy_steps import AccuracyStep, Flip, FlipKind
from compress.report.schema import SCHEMA_VERSION
from compress.verdict.checks import Check, Verdict
from compress.verdict.metrics import Metric
from compress.verdict.statistics import Estimate
from runtimes.artifact import Manifest
from runtimes.environment import Environment
from runtimes.errors import InputError
from runtimes.files import Json, read_json
from runtimes.measure import Measurement
from runtimes.target import Target

REPORT_FILE = "report.json"
FLOAT32_FILE = "model-float32.onnx"
BASELINE_FILE = "model-baseline.onnx"  # the network before its first pruning stage
ARTIFACTS = "artifacts"  # folder of a run: the exported models
SAMPLE = "sample"  # folder of a run: test images for bundles
FLIPPED = "flipped"  # folder of a run: thumbnails of test images, named by their number in the test split

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Row:
    """One artifact on one target, compared with the target's first artifact: the float32 network before pruning.

    top1, top1_drop_pp: None if the test images have no labels; a positive drop is a loss. metrics: on the test images,
    empty without labels. metric_drop_pp: drop of the report's metric. agreement: share of test images with the
    baseline's prediction. The comparisons are None for the baseline itself. val_metrics: on the val split, for sweeps;
    empty except for a target's last artifact. val_bounds: their one-sided confidence bounds. verdict: None for
    artifacts without a gate. notes: of the gate, one line each.
    """

    target: str
    artifact: str
    precision: str
    images: int
    top1: float | None
    metrics: dict[Metric, float]
    val_metrics: dict[Metric, float]
    top1_drop_pp: Estimate | None
    metric_drop_pp: Estimate | None
    agreement: Estimate | None
    size_bytes: int
    latency_ms_p50: float
    latency_ms_p90: float | None
    latency_ms_p99: float | None
    speedup_p50: Estimate | None
    checks: tuple[Check, ...]
    verdict: Verdict | None
    notes: tuple[str, ...] = ()
    val_bounds: dict[Metric, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class UnmeasuredFile:
    """An artifact for a target that is not this machine, so that it was not measured.

    reason: why the target can't be measured here. no_engine_reason: why no TensorRT engine was built here. int8_layers:
    (number of INT8 layers, number of weighted layers) of the engine. estimate_ms: from the device's data sheet, None
    without one; estimate_label: the kind of estimate.
    """

    target: Target
    artifact: str
    precision: str
    size_bytes: int
    reason: str
    no_engine_reason: str | None
    int8_layers: tuple[int, int] | None
    device: str | None
    estimate_ms: float | None
    estimate_label: str | None


@dataclass(frozen=True)
class DataDescription:
    """The data set of a run: class names, images per split and class, and images that can't be read.

    images_per_class: by split and class name; the empty name counts images without labels.
    set_aside: images that were excluded. left_out: files that are not images of a class. folders: the folder of each
    split that has one.
    """

    classes: tuple[str, ...]
    images_per_class: dict[str, dict[str, int]]
    fingerprint: str
    set_aside: tuple[Rejected, ...]
    left_out: tuple[LeftOut, ...] = ()
    folders: dict[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return lines about the splits' folders, the files that were left out, and classes without images."""
        return data_notes(self.folders, self.left_out, self.images_per_class)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a training stage: learning rate, mean training loss, and loss and top-1 on the val split."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_top1: float

    @classmethod
    def from_history(cls, epoch: Json) -> EpochRecord:
        """Return the record of one entry of a stage's history.json; raises KeyError or TypeError for other content."""
        return cls(**schema.epoch_of_history(epoch))


@dataclass(frozen=True)
class Flips:
    """Test images that the last artifact of a target classifies differently from the baseline.

    counts: all of them by kind. shown: the first of them, whose thumbnails lie in `FLIPPED`.
    """

    counts: dict[FlipKind, int]
    shown: tuple[Flip, ...]


@dataclass(frozen=True)
class ArtifactFile:
    """An artifact in the folder `ARTIFACTS`: its file name and manifest."""

    file: str
    manifest: Manifest

    def to_json(self) -> Json:
        """Return the fields of the manifest and the file name as one JSON object."""
        return {"file": self.file, **self.manifest.to_json()}

    @classmethod
    def from_json(cls, fields: Json) -> ArtifactFile:
        """Rebuild from JSON; raises KeyError, TypeError, AttributeError or ValueError for fields that don't fit."""
        return cls(
            fields["file"], Manifest.from_json({name: value for name, value in fields.items() if name != "file"})
        )


@dataclass(frozen=True, repr=False)
class Report:
    """Everything that report.json holds. verdict: None without a gate. metric: of the gate, top1 without.

    rows, measurements: one each per artifact and target, in the same order. training: epochs by step name. pruning:
    plans by step name. accuracy_steps, flips: by target. channels: output channels of each layer of the
    float32 file before pruning and now. notes: what was replaced, left out or decided for the user, one line each.
    folder: of the run, which the JSON does not hold; None for a report that was not read from one.
    """

    recipe: str
    verdict: Verdict | None
    confidence: float
    rows: tuple[Row, ...]
    data: DataDescription
    training: dict[str, tuple[EpochRecord, ...]]
    pruning: dict[str, tuple[PruningPlan, ...]]
    unmeasured: tuple[UnmeasuredFile, ...]
    accuracy_steps: dict[str, tuple[AccuracyStep, ...]]
    flips: dict[str, Flips]
    channels: dict[str, tuple[int, int]]
    artifacts: tuple[ArtifactFile, ...]
    measurements: tuple[Measurement, ...]
    environment: Environment
    durations_s: dict[str, float]
    notes: tuple[str, ...] = ()
    metric: Metric = "top1"
    toolkit_version: str = __version__
    schema_version: int = SCHEMA_VERSION
    folder: Path | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        lines = [f"{self.recipe}: {self.verdict or 'no verdict, the recipe has no gate'}"]
        for row in self.rows:
            top1 = "" if row.top1 is None else f", top-1 {100 * row.top1:.2f} %"
            size = f"{row.size_bytes / 1e6:.2f} MB"
            lines.append(f"  {row.target}: {row.artifact}{top1}, {size}, p50 {row.latency_ms_p50:.2f} ms")
        return "\n".join([*lines, *([f"  report: {self.folder / 'report.html'}"] if self.folder else [])])

    def __post_init__(self) -> None:
        of_rows = [(row.target, row.artifact) for row in self.rows]
        if of_rows != [(one.target.name, one.artifact) for one in self.measurements]:
            raise ValueError("its rows and measurements are not of the same artifacts")
        if not self.rows:
            raise ValueError("it has no rows")
        classes = len(self.data.classes)
        for measurement in self.measurements:
            if measurement.accuracy and len(measurement.accuracy.recall) != classes:
                raise ValueError(f"{measurement.artifact} has other classes than the data set's {classes}")
        for flips in self.flips.values():
            if any(not 0 <= number < classes for flip in flips.shown for number in flip.classes):
                raise ValueError(f"flips have other classes than the data set's {classes}")

    @property
    def is_pruned(self) -> bool:
        """True if the baseline is the network before a pruning stage, in a file of its own."""
        names = [row.artifact for row in self.rows] + [file.artifact for file in self.unmeasured]
        return any(map(is_baseline, names))

    def data_notes(self) -> list[str]:
        """Return the notes about the data set, and the number of excluded images."""
        lines = self.data.notes()
        count = len(self.data.set_aside)
        return lines + ([f"excluded: {count} image{'s' if count > 1 else ''}, listed in the report"] if count else [])

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the measured targets, in order."""
        return tuple(dict.fromkeys(row.target for row in self.rows))

    def rows_of(self, target: str) -> tuple[Row, ...]:
        """Return the rows of one target, the baseline first."""
        return tuple(row for row in self.rows if row.target == target)

    def measurements_of(self, target: str) -> tuple[Measurement, ...]:
        """Return the measurements of one target, the baseline first."""
        return tuple(measurement for measurement in self.measurements if measurement.target.name == target)

    def to_json(self) -> Json:
        """Return the content of report.json."""
        fields = asdict(replace(self, folder=None))
        del fields["folder"]
        return {
            **fields,
            "pruning": {step: [plan.to_json() for plan in plans] for step, plans in self.pruning.items()},
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "measurements": [measurement.to_json() for measurement in self.measurements],
        }

    @classmethod
    def from_json(cls, fields: Json) -> Report:
        """Rebuild from the content of a report.json of any readable version.

        Raises ValueError with the first field that is missing or does not fit.
        """
        try:
            current = schema.upgraded(fields)
            artifacts = _records("artifacts", current, ArtifactFile.from_json)
            measurements = _records("measurements", current, Measurement.from_json)
            pruning = {step: _records(step, current["pruning"], PruningPlan.from_json) for step in current["pruning"]}
            return _adapter().validate_python(
                {**current, "artifacts": artifacts, "measurements": measurements, "pruning": pruning}
            )
        except ValidationError as error:
            raise ValueError(_first_problem(error)) from error
        except KeyError as error:
            raise ValueError(f"it has no {error.args[0]}") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(f"its content has the wrong form: {error}") from error


def read(folder: Path) -> Report:
    """Return the report of a run folder; raises InputError if there is none or it can't be read."""
    path = folder / REPORT_FILE
    try:
        return replace(Report.from_json(read_json(path)), folder=folder)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; finish the run with: compress run RECIPE --out {folder}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a report that can be read: {error}; run the recipe again") from error


def is_baseline(artifact: str) -> bool:
    """Return whether an artifact (the name of an ONNX file or engine) is the network before its first pruning stage."""
    return artifact.startswith(Path(BASELINE_FILE).stem)


@functools.cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def _records(name: str, fields: Json, from_json: Callable[[Json], _Record]) -> tuple[_Record, ...]:
    """Rebuild a list of records; raises ValueError that names the first one that does not fit."""
    records = []
    for index, record in enumerate(fields[name]):
        try:
            records.append(from_json(record))
        except KeyError as error:
            raise ValueError(f"{name}.{index}: it has no {error.args[0]}") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{name}.{index}: {error}") from error
    return tuple(records)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"it has no {place}"
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
