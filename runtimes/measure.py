"""Measure accuracy and latency of artifacts on one target, interleaved in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt

from runtimes import energy, environment, telemetry
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import SessionTiming, Stream, Timing, interleave, single_stream
from runtimes.console import Console, SilentConsole
from runtimes.errors import ArtifactError, CompressError, InputError
from runtimes.evalset import EvalSet
from runtimes.files import Json, read_object
from runtimes.metrics import Accuracy, accuracy, confusion_of_rows
from runtimes.outputs.comparison import Comparison
from runtimes.outputs.kinds import Arrays, with_batch_axis
from runtimes.session import Images, Session, load
from runtimes.target import Target
from runtimes.telemetry import UNKNOWN, Unknown

SCHEMA_VERSION = 2
PERCENTILE_NEEDS_RUNS = {50: 1, 90: 20, 99: 200}  # at least two runs lie above p90 and p99
EVALUATION_BATCH = 32
INPUTS = 8  # different images in turn, so that no run finds its input in the cache


@dataclass(frozen=True)
class Measurement:
    """The figures of one artifact on one target.

    latency_ms: every run, (blocks, runs_per_block), from which confidence intervals over blocks can be computed.
    latency_ms_p90 and _p99 are None with too few runs. throughput_images_per_s is batch / p50.
    resident_bytes: growth of the process while the artifact was loaded.
    predicted: class of each image of the evaluation set, in order; accuracy is None without labels.
    device_ms_p50: of the same runs on the device's own clock (CUDA events), None where it has none.
    telemetry: state of the machine `before` and `after` the timed runs (`telemetry.Telemetry`), empty in older files.
    warmup_runs: largest number of warm-up runs of any session, None in older files. steady: whether every session's
    warm-up ended because latency was steady; None without warm-up. energy_mj: per call and rail, from
    `energy.per_call_mj`.
    """

    artifact: str
    sha256: str
    precision: str
    size_bytes: int
    target: Target
    timing: Timing
    latency_ms_p50: float
    latency_ms_p90: float | None
    latency_ms_p99: float | None
    latency_ms: tuple[tuple[float, ...], ...]
    throughput_images_per_s: float
    resident_bytes: int
    evalset_sha256: str | None
    accuracy: Accuracy | None
    predicted: tuple[int, ...]
    environment: Json
    session_options: dict[str, str] = field(default_factory=dict)
    telemetry: Json = field(default_factory=dict)
    device_ms_p50: float | None = None
    warmup_runs: int | None = None
    steady: bool | None = None
    energy_mj: dict[str, float] | Unknown = UNKNOWN
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> Json:
        """Return a value that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Json) -> Measurement:
        """Rebuild from JSON; raises KeyError, TypeError or ValueError for missing, unknown or wrong fields."""
        fields = upgraded(fields)
        timing = {"sessions": 1, **fields["timing"]}  # older files have one session
        measurement = read_object(cls, {**fields, "timing": timing, "accuracy": None})
        require_blocks("latency_ms", measurement.latency_ms)
        if measurement.latency_ms_p50 <= 0:
            raise ValueError(f"latency_ms_p50: must be above 0, not {measurement.latency_ms_p50}")
        if measurement.telemetry:
            telemetry.require_readings(measurement.telemetry)
        accuracy = None if fields["accuracy"] is None else Accuracy.from_json(fields["accuracy"])
        return replace(measurement, accuracy=accuracy)


def require_blocks(name: str, latency_ms: tuple[tuple[float, ...], ...]) -> None:
    """Raise ValueError unless there are blocks of equally many runs."""
    if not latency_ms or not latency_ms[0] or len({len(block) for block in latency_ms}) > 1:
        raise ValueError(f"{name}: must be blocks of equally many runs")


def upgraded(fields: Json) -> Json:
    """Return a measurement's JSON in the form of this version; raises ValueError for unknown versions."""
    version = fields["schema_version"]
    if version not in (1, SCHEMA_VERSION):
        raise ValueError(f"measurement of schema version {version}; this version reads 1 to {SCHEMA_VERSION}")
    content = fields["accuracy"]
    if version == 1 and content is not None:
        content = {**content, "confusion": confusion_of_rows(content["confusion"])}
    return {**fields, "accuracy": content, "schema_version": SCHEMA_VERSION}


@dataclass
class _Observed:
    """Observations of one artifact over its sessions. logits: (N, classes), None without an evaluation set."""

    resident_bytes: int = 0
    logits: npt.NDArray[np.float32] | None = None
    sessions: list[SessionTiming] = field(default_factory=list)
    energy_mj: dict[str, float] | Unknown = UNKNOWN


@dataclass(frozen=True)
class _Conditions:
    """Conditions that all artifacts of one `measure` call share. telemetry: readings `before` and `after`."""

    target: Target
    timing: Timing
    evalset: EvalSet | None
    environment: Json
    telemetry: Json


def measure(
    artifacts: list[Artifact],
    target: Target,
    evalset: EvalSet | None,
    timing: Timing,
    console: Console,
    with_energy: bool = True,
) -> list[Measurement]:
    """Measure all artifacts on one target, their timed runs interleaved; return one Measurement each, in order.

    Without an evaluation set, latency is timed on seeded noise and accuracy is None. Energy takes two more seconds per
    artifact where the system shows it. Raises InputError where artifact, evaluation set and target do not match.
    """
    if not artifacts:
        raise InputError("there is no artifact to measure")
    for artifact in artifacts:
        _check_fit(artifact, target, evalset)
        if evalset is not None:
            require_classes(artifact)
    inputs = [_inputs(artifact.manifest, target.batch, evalset) for artifact in artifacts]
    observed = [_Observed() for _ in artifacts]
    readings: Json = {}
    shares = timing.blocks_per_session()
    for number, blocks in enumerate(shares):
        with ExitStack() as stack:
            sessions, resident_bytes = _open(artifacts, target, stack)
            if number == 0:
                for each, artifact, session, grown in zip(observed, artifacts, sessions, resident_bytes, strict=True):
                    each.resident_bytes, each.logits = grown, _evaluate(session, artifact, target, evalset, console)
                readings["before"] = telemetry.read().to_json()
            timings = interleave(sessions, inputs, timing, sum(shares[:number]), blocks, console)
            for each, session_timing in zip(observed, timings, strict=True):
                each.sessions.append(session_timing)
            if number == len(shares) - 1:
                readings["after"] = telemetry.read().to_json()
                if with_energy and energy.can_measure(readings["before"], target):
                    for each, session, images in zip(observed, sessions, inputs, strict=True):
                        each.energy_mj = energy.per_call_mj(session, images, target)
    conditions = _Conditions(target, timing, evalset, environment.describe().for_runtimes(), readings)
    return [_measurement(artifact, each, conditions) for artifact, each in zip(artifacts, observed, strict=True)]


def stream(artifact: Artifact, target: Target, evalset: EvalSet | None, timing: Timing, console: Console) -> Stream:
    """Time an artifact by the single-stream scenario of MLPerf; raises as `measure` does."""
    _check_fit(artifact, target, evalset)
    if target.batch != 1:
        raise InputError(f"a single stream sends one image at a time; target '{target.name}' has batch {target.batch}")
    with closing(load(artifact, target)) as session:
        return single_stream(session, _inputs(artifact.manifest, 1, evalset), timing.warmup, console)


def evaluate(artifact: Artifact, target: Target, evalset: EvalSet) -> npt.NDArray[np.float32]:
    """Return the `(N, classes)` logits of all images of an evaluation set; raises as `measure` does."""
    _check_fit(artifact, target, evalset)
    with closing(load(artifact, target)) as session:
        return _all_logits(session, artifact, target, evalset, SilentConsole())


def infer(
    session: Session, artifact: Artifact, target: Target, pixels: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Return the finite `(n, classes)` logits of uint8 `(n, H, W, C)` images; a fixed batch takes at most its size.

    Raises ArtifactError for outputs of another shape, CompressError for NaN and infinity.
    """
    outputs = _run(session, artifact, target, pixels)[0][: len(pixels)]
    if not artifact.manifest.fits(outputs, len(pixels)):
        classes = len(artifact.manifest.labels)
        raise ArtifactError(f"{artifact.path.name} returns {outputs.shape} for {len(pixels)} images, not one logit for "
                            f"each of {classes} classes")  # fmt: skip
    if not np.isfinite(outputs).all():
        raise CompressError(f"{artifact.path.name} returns NaN or infinity on target '{target.name}'")
    return artifact.manifest.logits(outputs)


def answers(session: Session, artifact: Artifact, target: Target, pixels: npt.NDArray[np.uint8]) -> Iterator[Arrays]:
    """Yield the outputs of each uint8 `(H, W, 3)` image, without the batch axis; raises CompressError for NaN.

    An output whose first axis is not the batch, as of boxes after non-maximum suppression, belongs to the one image of
    a call.
    """
    size = target.batch if not artifact.manifest.dynamic_batch else 1
    for start in range(0, len(pixels), size):
        some = pixels[start : start + size]
        outputs = _run(session, artifact, target, some)
        for index in range(len(some)):
            arrays = tuple(np.asarray(array[index]) if array.shape[:1] == (size,) else array for array in outputs)
            if not all(np.isfinite(array).all() for array in arrays if np.issubdtype(array.dtype, np.floating)):
                raise CompressError(f"{artifact.path.name} returns NaN or infinity on target '{target.name}'")
            yield arrays


def compare_answers(reference: Artifact, other: Artifact, target: Target, evalset: EvalSet) -> Comparison:
    """Return the comparison of the outputs of two files on all images, one image at a time.

    Raises as `measure` does, and ArtifactError for other names of outputs.
    """
    manifest = reference.manifest
    if other.manifest.output_names != manifest.output_names or other.manifest.kind != manifest.kind:
        raise ArtifactError(f"{other.path.name}: has other outputs than {reference.path.name}")
    comparison = Comparison(manifest.kind, manifest.output_names, manifest.threshold)
    for artifact in (reference, other):
        _check_fit(artifact, target, evalset)
    with closing(load(reference, target)) as first, closing(load(other, target)) as second:
        for start in range(0, len(evalset), target.batch):
            pixels = evalset.pixels(np.arange(start, min(start + target.batch, len(evalset))))
            for pair in zip(answers(first, reference, target, pixels), answers(second, other, target, pixels),
                            strict=True):  # fmt: skip
                comparison.add(*pair)
    return comparison


def require_classes(artifact: Artifact) -> None:
    """Raise InputError for an artifact that is no classifier: it has no classes to be right or wrong about."""
    if len(artifact.manifest.labels) == 1:
        raise InputError(
            f"{artifact.path.name} has one output, so that its accuracy and agreement could not be less than 100 %; if "
            "it tells two classes apart, list both as labels in its manifest or with --labels; else measure latency "
            "without images"
        )
    if not artifact.manifest.is_classifier:
        raise InputError(f"{artifact.path.name} is no classifier: its outputs are of the kind "
                         f"'{artifact.manifest.kind}', which has no accuracy")  # fmt: skip


def _run(session: Session, artifact: Artifact, target: Target, pixels: npt.NDArray[np.uint8]) -> Arrays:
    """Return the outputs of uint8 `(n, H, W, 3)` images, with the batch axis; fill up a fixed batch."""
    images = artifact.manifest.prepare(pixels)
    if not artifact.manifest.dynamic_batch:
        padded = np.zeros_like(images, shape=(target.batch, *images.shape[1:]))  # the last batch may be smaller
        padded[: len(images)] = images
        images = padded
    return with_batch_axis(session.run(images), len(images))


def _open(artifacts: list[Artifact], target: Target, stack: ExitStack) -> tuple[list[Session], list[int]]:
    """Load all artifacts; return the sessions and by how many bytes each made the process grow."""
    sessions, growths = [], []
    for artifact in artifacts:
        before = environment.resident_bytes()
        sessions.append(stack.enter_context(closing(load(artifact, target))))
        growths.append(max(0, environment.resident_bytes() - before))
    return sessions, growths


def _check_fit(artifact: Artifact, target: Target, evalset: EvalSet | None) -> None:
    manifest = artifact.manifest
    if not manifest.dynamic_batch and manifest.input_shape[0] != target.batch:
        raise InputError(
            f"{artifact.path.name} has the fixed batch {manifest.input_shape[0]}, target '{target.name}' has batch "
            f"{target.batch}; set the batch to {manifest.input_shape[0]}, or export with batch: dynamic"
        )
    if evalset is None:
        return
    if evalset.preprocessing != manifest.preprocessing:
        raise InputError(f"{artifact.path.name} has another preprocessing than the evaluation set")
    if manifest.is_classifier and evalset.classes != manifest.labels:
        raise InputError(f"{artifact.path.name} has other classes than the evaluation set")
    if not len(evalset):
        raise InputError("the evaluation set has no images")


def _evaluate(
    session: Session, artifact: Artifact, target: Target, evalset: EvalSet | None, console: Console
) -> npt.NDArray[np.float32] | None:
    return None if evalset is None else _all_logits(session, artifact, target, evalset, console)


def _all_logits(
    session: Session, artifact: Artifact, target: Target, evalset: EvalSet, console: Console
) -> npt.NDArray[np.float32]:
    size = EVALUATION_BATCH if artifact.manifest.dynamic_batch else target.batch
    parts = []
    for start in range(0, len(evalset), size):
        stop = min(start + size, len(evalset))
        parts.append(infer(session, artifact, target, evalset.pixels(np.arange(start, stop))))
        console.progress(f"evaluate {artifact.path.stem}", stop, len(evalset))
    return np.concatenate(parts)


def _inputs(manifest: Manifest, batch: int, evalset: EvalSet | None) -> list[Images]:
    shape = manifest.preprocessing.image_shape
    if evalset is None:
        pixels = np.random.default_rng(0).integers(0, 256, (batch * INPUTS, *shape), np.uint8)
    else:
        pixels = evalset.pixels(np.arange(batch * INPUTS) % len(evalset))
    return [manifest.prepare(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]


def _measurement(artifact: Artifact, observed: _Observed, conditions: _Conditions) -> Measurement:
    evalset, logits, sessions = conditions.evalset, observed.logits, observed.sessions
    latency_ms = np.concatenate([session.latency_ms for session in sessions])
    device_ms = [milliseconds for session in sessions for milliseconds in session.device_ms]
    steady = {session.steady for session in sessions}
    percentiles = {
        percentile: round(float(np.percentile(latency_ms, percentile)), 4) if latency_ms.size >= needed else None
        for percentile, needed in PERCENTILE_NEEDS_RUNS.items()
    }
    p50 = percentiles[50]
    assert p50 is not None
    labels = None if evalset is None else evalset.labels
    return Measurement(
        artifact=artifact.path.name,
        sha256=artifact.manifest.sha256,
        precision=artifact.manifest.precision,
        size_bytes=artifact.manifest.size_bytes,
        target=conditions.target,
        timing=conditions.timing,
        latency_ms_p50=p50,
        latency_ms_p90=percentiles[90],
        latency_ms_p99=percentiles[99],
        latency_ms=tuple(tuple(block) for block in latency_ms.round(4).tolist()),
        throughput_images_per_s=round(conditions.target.batch * 1000 / p50, 2),
        resident_bytes=observed.resident_bytes,
        evalset_sha256=None if evalset is None else evalset.sha256,
        accuracy=None if logits is None or labels is None else accuracy(logits, labels),
        predicted=() if logits is None else tuple(logits.argmax(1).tolist()),
        environment=conditions.environment,
        session_options=artifact.manifest.session_options,
        telemetry=conditions.telemetry,
        device_ms_p50=round(float(np.median(device_ms)), 4) if device_ms else None,
        warmup_runs=max(session.warmup_runs for session in sessions),
        steady=None if None in steady else steady == {True},
        energy_mj=observed.energy_mj,
    )
