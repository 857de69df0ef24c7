"""The one clock: accuracy and latency of artifacts on one target, interleaved in one process."""

from __future__ import annotations

import gc
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from runtimes import energy, environment, telemetry
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Progress, Stream, Taken, Timing, interleave, single_stream
from runtimes.errors import ArtifactError, CompressError, InputError
from runtimes.evalset import EvalSet
from runtimes.metrics import Accuracy, accuracy, confusion_of_rows
from runtimes.session import Images, Session, load
from runtimes.target import Target
from runtimes.telemetry import UNKNOWN, Unknown

SCHEMA_VERSION = 2
PERCENTILE_NEEDS_RUNS = {50: 1, 90: 20, 99: 200}  # at least two runs lie beyond each percentile that is reported
EVALUATION_BATCH = 32
INPUTS = 8  # different images in turn, so that no run sees what the last one left in the cache


@dataclass(frozen=True)
class Measurement:
    """One artifact on one target.

    latency_ms: of every run, (blocks, runs_per_block), so that a ratio's interval can be taken over blocks.
    latency_ms_p90 and _p99 are None where too few runs lie beyond them. throughput_images_per_s is batch / p50.
    resident_bytes: growth of the process while the artifact was loaded.
    predicted: the class of each image of the evaluation set, in order; accuracy is None without labels.
    device_ms_p50: of the same runs on the device's own clock (CUDA events), None where it has none.
    telemetry: the machine's state `before` and `after` the timed runs (`telemetry.Telemetry`), empty in older files.
    warmup_runs: before the timed ones, the most of any session, None in older files. steady: whether each session's
    warm-up ended because runs no longer got faster or slower; None without warm-up. energy_mj: per call and rail, by
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
    environment: dict[str, Any]
    session_options: dict[str, str] = field(default_factory=dict)
    telemetry: dict[str, Any] = field(default_factory=dict)
    device_ms_p50: float | None = None
    warmup_runs: int | None = None
    steady: bool | None = None
    energy_mj: dict[str, float] | Unknown = UNKNOWN
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """Return a value that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Measurement:
        """Rebuild from JSON; raises KeyError, TypeError or ValueError for fields that don't fit."""
        fields = upgraded(fields)
        return cls(
            **{
                **fields,
                "target": Target.from_json(fields["target"]),
                "timing": Timing(**{"sessions": 1, **fields["timing"]}),  # older files have one
                "latency_ms": tuple(tuple(block) for block in fields["latency_ms"]),
                "predicted": tuple(fields["predicted"]),
                "accuracy": None if fields["accuracy"] is None else Accuracy.from_json(fields["accuracy"]),
            }
        )


def upgraded(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a measurement's JSON as this version writes it; raises ValueError for versions that it does not know."""
    version = fields["schema_version"]
    if version not in (1, SCHEMA_VERSION):
        raise ValueError(f"measurement of schema version {version}, not {SCHEMA_VERSION}")
    found = fields["accuracy"]
    if version == 1 and found is not None:
        found = {**found, "confusion": confusion_of_rows(found["confusion"])}
    return {**fields, "accuracy": found, "schema_version": SCHEMA_VERSION}


def measure(
    artifacts: list[Artifact],
    target: Target,
    evalset: EvalSet | None,
    timing: Timing,
    progress: Progress,
    with_energy: bool = True,
) -> list[Measurement]:
    """Measure all artifacts on one target, their timed runs interleaved; one Measurement each, in order.

    Without an evaluation set, latency is taken on seeded noise and accuracy is None. Energy takes two more seconds of
    each artifact, where the system shows it. Raises InputError where artifact, evaluation set and target don't fit each
    other.
    """
    if not artifacts:
        raise InputError("there is no artifact to measure")
    for artifact in artifacts:
        _check_fit(artifact, target, evalset)
    inputs = [_inputs(artifact.manifest, target.batch, evalset) for artifact in artifacts]
    taken: list[list[Taken]] = []
    gc.collect()  # once: beside torch it takes a third of a second
    for blocks in timing.shares():
        with ExitStack() as opened:
            sessions, grown = _opened(artifacts, target, opened)
            if not taken:
                resident = grown
                logits = [_evaluate(session, artifact, target, evalset, progress)
                          for session, artifact in zip(sessions, artifacts, strict=True)]  # fmt: skip
                state = {"before": telemetry.read().to_json()}
            done = sum(len(one[0].latency_ms) for one in taken)
            taken.append(interleave(sessions, inputs, timing, done, blocks, progress))
            if len(taken) == len(timing.shares()):
                state["after"] = telemetry.read().to_json()
                seen = with_energy and energy.is_known(state["before"], target)
                used_mj = [energy.per_call_mj(session, images, target) if seen else UNKNOWN
                           for session, images in zip(sessions, inputs, strict=True)]  # fmt: skip
    machine = environment.describe().for_runtimes()
    return [
        _measurement(artifact, target, evalset, timing, machine, state, grown, answers, list(of_sessions), mj)
        for artifact, grown, answers, of_sessions, mj in zip(
            artifacts, resident, logits, zip(*taken, strict=True), used_mj, strict=True
        )
    ]


def stream(artifact: Artifact, target: Target, evalset: EvalSet | None, timing: Timing, progress: Progress) -> Stream:
    """Take an artifact's latency by MLPerf's rule for a single stream; raises as `measure` does."""
    _check_fit(artifact, target, evalset)
    if target.batch != 1:
        raise InputError(f"a single stream is of one image after the other, not of batches of {target.batch}")
    with closing(load(artifact, target)) as session:
        return single_stream(session, _inputs(artifact.manifest, 1, evalset), timing.warmup, progress)


def _opened(artifacts: list[Artifact], target: Target, opened: ExitStack) -> tuple[list[Session], list[int]]:
    """Load all artifacts; return by how many bytes each made the process grow, too."""
    sessions, grown = [], []
    for artifact in artifacts:
        before = environment.resident_bytes()
        sessions.append(opened.enter_context(closing(load(artifact, target))))
        grown.append(max(0, environment.resident_bytes() - before))
    return sessions, grown


def evaluate(artifact: Artifact, target: Target, evalset: EvalSet) -> npt.NDArray[np.float32]:
    """Return the `(N, classes)` logits of every image; raises as `measure` does."""
    _check_fit(artifact, target, evalset)
    with closing(load(artifact, target)) as session:
        return _all_logits(session, artifact, target, evalset, lambda what, done, total: None)


def _check_fit(artifact: Artifact, target: Target, evalset: EvalSet | None) -> None:
    manifest = artifact.manifest
    if not manifest.dynamic_batch and manifest.input_shape[0] != target.batch:
        raise InputError(
            f"{artifact.path.name} has batch {manifest.input_shape[0]} fixed, target '{target.name}' wants "
            f"{target.batch}; export with batch: dynamic, or make the file for that batch"
        )
    if evalset is None:
        return
    if evalset.preprocessing != manifest.preprocessing:
        raise InputError(f"{artifact.path.name} was made for another preprocessing than the evaluation set's")
    if evalset.classes != manifest.labels:
        raise InputError(f"{artifact.path.name} has other classes than the evaluation set")
    if not len(evalset):
        raise InputError("the evaluation set has no images")


def _evaluate(
    session: Session, artifact: Artifact, target: Target, evalset: EvalSet | None, progress: Progress
) -> npt.NDArray[np.float32] | None:
    return None if evalset is None else _all_logits(session, artifact, target, evalset, progress)


def _all_logits(
    session: Session, artifact: Artifact, target: Target, evalset: EvalSet, progress: Progress
) -> npt.NDArray[np.float32]:
    size = EVALUATION_BATCH if artifact.manifest.dynamic_batch else target.batch
    parts = []
    for start in range(0, len(evalset), size):
        stop = min(start + size, len(evalset))
        parts.append(answer(session, artifact, target, evalset.pixels(np.arange(start, stop))))
        progress(f"evaluate {artifact.path.stem}", stop, len(evalset))
    return np.concatenate(parts)


def answer(
    session: Session, artifact: Artifact, target: Target, pixels: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Return the finite `(n, classes)` logits of uint8 `(n, H, W, 3)` images; a fixed batch takes at most its size.

    Raises ArtifactError for answers that are not a logit for each class, CompressError for NaN and infinity.
    """
    images = artifact.manifest.prepare(pixels)
    if not artifact.manifest.dynamic_batch:
        full = np.zeros_like(images, shape=(target.batch, *images.shape[1:]))  # the last batch may be smaller
        full[: len(images)] = images
        images = full
    part = session.run(images)[: len(pixels)]
    if part.shape != (len(pixels), len(artifact.manifest.labels)):
        classes = len(artifact.manifest.labels)
        raise ArtifactError(f"{artifact.path.name} answers {part.shape} to {len(pixels)} images, not a logit for each "
                            f"of {classes} classes")  # fmt: skip
    if not np.isfinite(part).all():
        raise CompressError(f"{artifact.path.name} answers NaN or infinity on target '{target.name}'")
    return artifact.manifest.logits(part)


def _inputs(manifest: Manifest, batch: int, evalset: EvalSet | None) -> list[Images]:
    side = manifest.preprocessing.crop
    if evalset is None:
        pixels = np.random.default_rng(0).integers(0, 256, (batch * INPUTS, side, side, 3), np.uint8)
    else:
        pixels = evalset.pixels(np.arange(batch * INPUTS) % len(evalset))
    return [manifest.prepare(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]


def _measurement(
    artifact: Artifact,
    target: Target,
    evalset: EvalSet | None,
    timing: Timing,
    machine: dict[str, Any],
    state: dict[str, Any],
    resident: int,
    logits: npt.NDArray[np.float32] | None,
    taken: list[Taken],
    energy_mj: dict[str, float] | Unknown,
) -> Measurement:
    latencies_ms = np.concatenate([one.latency_ms for one in taken])
    device_ms = [one for session in taken for one in session.device_ms]
    steady = {one.steady for one in taken}
    percentiles = {
        percentile: round(float(np.percentile(latencies_ms, percentile)), 4) if latencies_ms.size >= needed else None
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
        target=target,
        timing=timing,
        latency_ms_p50=p50,
        latency_ms_p90=percentiles[90],
        latency_ms_p99=percentiles[99],
        latency_ms=tuple(tuple(block) for block in latencies_ms.round(4).tolist()),
        throughput_images_per_s=round(target.batch * 1000 / p50, 2),
        resident_bytes=resident,
        evalset_sha256=None if evalset is None else evalset.sha256,
        accuracy=None if logits is None or labels is None else accuracy(logits, labels),
        predicted=() if logits is None else tuple(logits.argmax(1).tolist()),
        environment=machine,
        session_options=artifact.manifest.session_options,
        telemetry=state,
        device_ms_p50=round(float(np.median(device_ms)), 4) if device_ms else None,
        warmup_runs=max(one.warmup_runs for one in taken),
        steady=None if None in steady else steady == {True},
        energy_mj=energy_mj,
    )
