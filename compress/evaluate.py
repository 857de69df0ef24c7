"""Accuracy of artifacts on a data set, compared image by image with the first; streamed, resumable, without torch."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compress.images.folders import in_nfc
from compress.images.samples import DECODING_THREADS, Data, Sample
from compress.images.synsets import class_names
from compress.pipeline.evaluation_images import choose, seen_in_evalset
from compress.pipeline.identity import identity
from compress.process.code_digest import code_digest
from compress.process.table import Table
from compress.verdict import metrics
from compress.verdict.statistics import Estimate, top1_drop_pp
from runtimes import evalset as evalsets
from runtimes import images as image_files
from runtimes.artifact import Artifact
from runtimes.console import Console
from runtimes.errors import CompressError, InputError
from runtimes.evalset import EvalSet
from runtimes.files import replacing
from runtimes.measure import infer, require_classes
from runtimes.metrics import Accuracy, ConfidenceCalibration, Scores, accuracy_of, calibration, images_per_class, scores
from runtimes.preprocessing import Preprocessing
from runtimes.session import Session, load
from runtimes.target import Target

CHUNK = 512  # images per file of logits; a killed evaluation loses at most so many
EXTREME_CLASSES = 10  # shown of the worst and of the best
CONFIDENCE = 0.95
MAX_UNREADABLE = 0.01  # of all images; the default of recipes

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TestImages:
    """Labelled images: samples of a data set that are decoded on demand, or a prepared evaluation set.

    notes: lines about the data set, for example about files that were left out.
    """

    __test__ = False  # the name looks like a test class to pytest

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    fingerprint: str
    samples: tuple[Sample, ...] = ()
    prepared: EvalSet | None = None
    notes: tuple[str, ...] = ()

    def batches(self, preprocessing: Preprocessing, start: int, stop: int, size: int) -> Iterator[list[Pixels | None]]:
        """Yield images `start` to `stop`, `size` at a time: uint8 (H, W, C), or None for an unreadable image."""
        pixels = (
            _decoded(self.samples[start:stop], preprocessing, 2 * size)
            if self.prepared is None
            else iter(self.prepared.pixels(np.arange(start, stop)))
        )
        while batch := list(islice(pixels, size)):
            yield batch


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy on one class: number of its images; precision, recall and F1, each 0 to 1."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """One artifact on one data set.

    balanced_accuracy, macro_f1: means over the classes with images, 0 to 1.
    unreadable: names of images that could not be decoded; no figure counts them. drop_pp: top-1 of the first artifact
    minus that of this one in percentage points, with one-sided 95 % bounds. agreement: share of images for which this
    artifact predicts the same class as the first. Both are None for the first artifact. notes: as in TestImages.
    """

    artifact: str
    sha256: str
    target: Target
    classes: tuple[str, ...]
    accuracy: Accuracy
    balanced_accuracy: float
    macro_f1: float
    calibration: ConfidenceCalibration
    unreadable: tuple[str, ...]
    drop_pp: Estimate | None
    agreement: float | None
    notes: tuple[str, ...] = ()

    def per_class(self) -> list[ClassAccuracy]:
        """Return the accuracy of each class, in the order of the artifact's outputs."""
        counts = images_per_class(self.accuracy.confusion, len(self.classes))
        columns = (self.classes, counts, self.accuracy.precision, self.accuracy.recall, self.accuracy.f1)
        return [ClassAccuracy(*row) for row in zip(*columns, strict=True)]

    def unreadable_notes(self) -> list[str]:
        """Return a line about the unreadable images if there are any."""
        count = len(self.unreadable)
        images = f"{count} image{'s' if count > 1 else ''} (--json lists all)"
        return [f"left out: {images}: can't be read, for example {self.unreadable[0]}"] if count else []

    def to_json(self) -> dict[str, object]:
        """Return all fields except the confusion matrix, which has a million entries for ImageNet."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("accuracy", "classes")}
        totals = {name: getattr(self.accuracy, name) for name in ("images", "loss", "top1", "top5")}
        totals |= {"balanced_accuracy": self.balanced_accuracy, "macro_f1": self.macro_f1}
        classes = [
            {"class": row.name, "images": row.images, "precision": row.precision, "recall": row.recall, "f1": row.f1}
            for row in self.per_class()
        ]
        return {**fields, **totals, "per_class": classes}


def find_images(
    data: str | None,
    evalset: Path | None,
    split: str | None,
    artifacts: Sequence[Artifact] = (),
    all_images: bool = False,
) -> TestImages:
    """Return the labelled images of `--data NAME[:ROOT]` or of `--evalset FOLDER`.

    split: None for test. Of `data`, images that the runs of the artifacts learned from are left out, unless all_images.
    Raises InputError unless exactly one of the two is set, for options that would be ignored, for an unknown data set,
    and for a split without labelled images.
    """
    if (data is None) == (evalset is None):
        raise InputError("give either --data NAME:ROOT, as in --data imagefolder:/data/flowers, or --evalset FOLDER")
    if evalset is not None:
        if all_images or split:
            option = "--all-images" if all_images else "--split"
            raise InputError(f"{option} is for --data: an evaluation set is always evaluated whole")
        prepared = evalsets.load(evalset)
        if prepared.labels is None:
            raise InputError(f"{evalset}: its images have no labels; accuracy needs them")
        labels = np.array(prepared.labels)
        digest = hashlib.sha256(prepared.sha256.encode() + labels.tobytes()).hexdigest()
        notes = seen_in_evalset(evalset, prepared.names, artifacts)
        return TestImages(prepared.classes, prepared.names, labels, digest, prepared=prepared, notes=notes)
    assert data is not None
    if all_images and split:
        raise InputError("--all-images evaluates all splits; remove it or --split")
    choice = choose(data, split or "test", artifacts, all_images)
    return replace(_from_samples(choice.classes, choice.samples), notes=choice.notes)


def evaluate(
    artifacts: list[Artifact], images: TestImages, target: Target, folder: Path | None, console: Console
) -> list[Evaluation]:
    """Evaluate each artifact and compare it with the first.

    folder: keeps the logits; those already there for the same artifact, images and target are reused. None: temporary.
    Raises InputError if the images do not fit an artifact or too many are unreadable.
    """
    requests = [_Request(artifact, _fit_labels(artifact, images, target), target) for artifact in artifacts]
    with tempfile.TemporaryDirectory() as temporary:
        chunks = [_write_logits(request, folder or Path(temporary), console) for request in requests]
        predictions = [_predictions(request.images, paths) for request, paths in zip(requests, chunks, strict=True)]
    return [
        _evaluation(request, own, predictions[0] if index else None)
        for index, (request, own) in enumerate(zip(requests, predictions, strict=True))
    ]


@dataclass(frozen=True)
class _Request:
    """One artifact to evaluate on one target; the labels of `images` are indices of its outputs."""

    artifact: Artifact
    images: TestImages
    target: Target

    def key(self) -> str:
        """Return the name of the folder for the logits: a digest of everything that they depend on."""
        manifest = self.artifact.manifest
        settings = (manifest.preprocessing, manifest.output, manifest.input_dtype,
                    sorted(manifest.session_options.items()))  # fmt: skip
        content = json.dumps([self.images.fingerprint, identity(self.target), repr(settings), code_digest()])
        digest = hashlib.sha256(content.encode()).hexdigest()
        return f"{manifest.sha256[:16]}-{digest[:16]}"


def _from_samples(classes: tuple[str, ...], samples: tuple[Sample, ...]) -> TestImages:
    labels = [sample.label for sample in samples if sample.label is not None]
    if len(labels) != len(samples):
        raise InputError(f"{len(samples) - len(labels)} of {len(samples)} images have no label; accuracy needs them")
    test_split = Data(classes, (), (), samples)  # a fingerprint of all splits would read a million training images
    names = tuple(sample.name for sample in samples)
    return TestImages(classes, names, np.asarray(labels, np.int64), test_split.fingerprint(), samples)


def _fit_labels(artifact: Artifact, images: TestImages, target: Target) -> TestImages:
    """Return the images with labels that are indices of the artifact's outputs; it may have more classes."""
    manifest = artifact.manifest
    require_classes(artifact)
    if not manifest.dynamic_batch and manifest.input_shape[0] != target.batch:
        raise InputError(f"{artifact.path.name}: its batch is fixed at {manifest.input_shape[0]}; set --batch to that")
    if images.prepared is not None and images.prepared.preprocessing != manifest.preprocessing:
        raise InputError(f"{artifact.path.name}: its preprocessing differs from that of the evaluation set")
    index = {in_nfc(name): position for position, name in enumerate(manifest.labels)}
    unknown = [name for name in images.classes if in_nfc(name) not in index]
    if unknown:
        is_numbered = manifest.labels == tuple(str(index) for index in range(len(manifest.labels)))
        raise InputError(
            f"{artifact.path.name}: does not know the class '{unknown[0]}' of the data; its {len(manifest.labels)} "
            f"classes are {', '.join(manifest.labels[:5])}{', …' if len(manifest.labels) > 5 else ''}"
            f"{'; name its outputs, in their order, with --labels FILE' if is_numbered else ''}"
        )
    positions = np.asarray([index[in_nfc(name)] for name in images.classes], np.int64)
    return replace(images, classes=manifest.labels, labels=positions[images.labels])


def _write_logits(request: _Request, out: Path, console: Console) -> list[Path]:
    """Write the missing chunks of logits and return the paths of all; unreadable images have NaN."""
    folder, total = out / request.key(), len(request.images.names)
    starts = range(0, total, CHUNK)
    paths = [folder / f"{start:08d}.npy" for start in starts]
    shapes = [(min(CHUNK, total - start), len(request.artifact.manifest.labels)) for start in starts]
    missing = [not _is_complete(path, shape) for path, shape in zip(paths, shapes, strict=True)]
    if any(missing):
        with closing(load(request.artifact, request.target)) as session:
            for path, start, (count, _), absent in zip(paths, starts, shapes, missing, strict=True):
                if absent:
                    _write_chunk(path, _chunk(session, request, range(start, start + count), console))
    return paths


def _is_complete(path: Path, shape: tuple[int, int]) -> bool:
    try:
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing or damaged: computed again
        return False
    return bool(logits.shape == shape and logits.dtype == np.float32)


def _chunk(session: Session, request: _Request, indices: range, console: Console) -> Logits:
    artifact, target = request.artifact, request.target
    logits = np.full((len(indices), len(artifact.manifest.labels)), np.nan, np.float32)
    done = 0
    for batch in request.images.batches(artifact.manifest.preprocessing, indices.start, indices.stop, target.batch):
        readable = [index for index, pixels in enumerate(batch) if pixels is not None]
        if readable:
            stacked = np.stack([pixels for pixels in batch if pixels is not None])
            logits[done + np.asarray(readable)] = infer(session, artifact, target, stacked)
        done += len(batch)
        console.progress(f"evaluate {artifact.path.stem}", indices.start + done, len(request.images.names))
    return logits


def _write_chunk(path: Path, logits: Logits) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, logits)


def _decoded(samples: tuple[Sample, ...], preprocessing: Preprocessing, ahead: int) -> Iterator[Pixels | None]:
    """Yield decoded images in order; threads decode at most `ahead` images in advance."""
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        waiting: deque[Future[Pixels | None]] = deque()
        for sample in samples:
            waiting.append(pool.submit(_decode, sample, preprocessing))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _decode(sample: Sample, preprocessing: Preprocessing) -> Pixels | None:
    try:
        return image_files.read(sample.source, preprocessing)
    except image_files.UnreadableImageError:
        return None


@dataclass(frozen=True)
class _Predictions:
    """Predictions of one artifact. readable: (N,) for all images; scores and labels: of the readable ones."""

    readable: npt.NDArray[np.bool_]
    scores: Scores
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        correct: npt.NDArray[np.bool_] = self.scores.predicted == self.labels
        return correct

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """Names of the predicted classes: comparable between artifacts whose outputs are in a different order."""
        return np.asarray(self.classes)[self.scores.predicted]


def _predictions(images: TestImages, chunks: list[Path]) -> _Predictions:
    """Compute the scores from the logits, one chunk at a time; raises InputError if too many are unreadable."""
    parts: list[Scores] = []
    masks: list[npt.NDArray[np.bool_]] = []
    for path, start in zip(chunks, range(0, len(images.names), CHUNK), strict=True):
        logits = np.load(path, allow_pickle=False)
        masks.append(~np.isnan(logits[:, 0]))
        if masks[-1].any():
            parts.append(scores(logits[masks[-1]], images.labels[start : start + CHUNK][masks[-1]]))
    readable = np.concatenate(masks)
    unreadable = _unreadable(images, readable)
    if len(unreadable) > MAX_UNREADABLE * len(readable):
        raise InputError(f"{len(unreadable)} of {len(readable)} images cannot be read, for example {unreadable[0]}; "
                         f"at most {MAX_UNREADABLE:.0%} may be unreadable; repair or remove them")  # fmt: skip
    return _Predictions(readable, Scores.joined(parts), images.labels[readable], images.classes)


def _unreadable(images: TestImages, readable: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, is_readable in zip(images.names, readable, strict=True) if not is_readable)


def _evaluation(request: _Request, own: _Predictions, first: _Predictions | None) -> Evaluation:
    drop, agreement = None, None
    if first is not None:
        if not np.array_equal(own.readable, first.readable):
            raise CompressError("the readable images changed during the evaluation; run it again with --out")
        drop = top1_drop_pp(first.correct, own.correct, np.ones(len(own.correct), bool), CONFIDENCE)
        agreement = float(np.mean(own.names == first.names))
    classes = request.images.classes
    return Evaluation(
        artifact=request.artifact.path.name,
        sha256=request.artifact.manifest.sha256,
        target=request.target,
        classes=class_names(classes),
        accuracy=accuracy_of(own.scores, own.labels, len(classes)),
        balanced_accuracy=metrics.value("balanced_accuracy", own.scores.predicted, own.labels),
        macro_f1=metrics.value("macro_f1", own.scores.predicted, own.labels),
        calibration=calibration(own.scores, own.labels),
        unreadable=_unreadable(request.images, own.readable),
        drop_pp=drop,
        agreement=agreement,
        notes=request.images.notes,
    )


def tables(evaluations: list[Evaluation]) -> list[Table]:
    """Return a table with the totals of all artifacts, then tables with the worst and best classes of each."""
    result = [_totals(evaluations)]
    for evaluation in evaluations:
        name = evaluation.artifact
        means = f"balanced {100 * evaluation.balanced_accuracy:.2f} %, macro-F1 {100 * evaluation.macro_f1:.2f} %"
        rows = sorted((row for row in evaluation.per_class() if row.images), key=lambda row: (row.f1, row.name))
        if len(rows) <= 2 * EXTREME_CLASSES:
            result.append(_classes(f"{name}: classes by F1; {means}", rows))
        else:
            title = f"{name}: the {EXTREME_CLASSES} worst of {len(rows)} classes by F1; {means}"
            result.append(_classes(title, rows[:EXTREME_CLASSES]))
            result.append(_classes(f"{name}: the {EXTREME_CLASSES} best", rows[: -EXTREME_CLASSES - 1 : -1]))
    return result


def _totals(evaluations: list[Evaluation]) -> Table:
    """Return one row per artifact; columns that are empty for all artifacts are omitted."""
    headings = ("<artifact", "images", "unread", "top-1 %", "top-5 %", "ECE %", "change (pp)", "low", "high", "same %")
    rows = []
    for evaluation in evaluations:
        accuracy, drop = evaluation.accuracy, evaluation.drop_pp
        top5 = "-" if accuracy.top5 is None else f"{100 * accuracy.top5:.2f}"
        unread = str(len(evaluation.unreadable)) if evaluation.unreadable else "-"
        change = ["-"] * 3 if drop is None else [f"{0 - pp:+.2f}" for pp in (drop.value, drop.high, drop.low)]
        same = "-" if evaluation.agreement is None else f"{100 * evaluation.agreement:.1f}"
        rows.append([Path(evaluation.artifact).stem, str(accuracy.images), unread, f"{100 * accuracy.top1:.2f}", top5,
                     f"{100 * evaluation.calibration.expected_error:.2f}", *change, same])  # fmt: skip
    used = [column for column in range(len(headings)) if any(row[column] != "-" for row in rows)]
    return Table.of(
        "", "|".join(headings[column] for column in used), [[row[column] for column in used] for row in rows]
    )


def _classes(title: str, rows: list[ClassAccuracy]) -> Table:
    cells = [
        [row.name, str(row.images), *(f"{value:.3f}" for value in (row.precision, row.recall, row.f1))] for row in rows
    ]
    return Table.of(title, "<class|images|precision|recall|F1", cells)
