"""Accuracy of artifacts on a data set: streamed, resumable, compared in pairs with the first; loads without torch."""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.images.samples import DECODING_THREADS, Data, Sample
from compress.images.synsets import class_names
from compress.recipe import named_data
from compress.verdict.statistics import Estimate, top1_drop_pp
from runtimes import evalset as evalsets
from runtimes import images
from runtimes.artifact import Artifact
from runtimes.clock import Progress
from runtimes.errors import CompressError, InputError
from runtimes.evalset import EvalSet
from runtimes.files import replacing
from runtimes.measure import answer
from runtimes.metrics import Accuracy, Calibration, Scores, accuracy_of, calibration, images_per_class, scores
from runtimes.preprocessing import Preprocessing
from runtimes.session import Session, load
from runtimes.target import Target

CHUNK = 512  # images whose logits are one file: what a kill can lose
SHOWN = 10  # classes, of the worst and of the best
CONFIDENCE = 0.95
MAX_UNREADABLE = 0.01  # of all images, as in a recipe

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TestImages:
    """Labelled images to evaluate on: samples of a data set that are decoded as needed, or a prepared set."""

    __test__ = False  # pytest would take it for a test

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    fingerprint: str
    samples: tuple[Sample, ...] = ()
    prepared: EvalSet | None = None

    def batches(self, preprocessing: Preprocessing, start: int, stop: int, size: int) -> Iterator[list[Pixels | None]]:
        """Yield uint8 (H, W, 3) images from `start` to `stop`, `size` at a time; None for what can't be decoded."""
        pixels = (
            _decoded(self.samples[start:stop], preprocessing, 2 * size)
            if self.prepared is None
            else iter(self.prepared.pixels(np.arange(start, stop)))
        )
        while batch := list(islice(pixels, size)):
            yield batch


@dataclass(frozen=True)
class Evaluation:
    """One artifact on one data set.

    unreadable: names of images that could not be decoded and count nowhere. drop_pp: how many percentage points of
    top-1 are lost against the first artifact, with one-sided 95 % bounds. agreement: share of images with the first
    one's answer. Both are None for the first.
    """

    artifact: str
    sha256: str
    target: Target
    classes: tuple[str, ...]
    accuracy: Accuracy
    calibration: Calibration
    unreadable: tuple[str, ...]
    drop_pp: Estimate | None
    agreement: float | None

    def per_class(self) -> list[dict[str, Any]]:
        """Return precision, recall and F1 of each class with its number of images, in the order of the outputs."""
        shares = zip(self.accuracy.precision, self.accuracy.recall, self.accuracy.f1, strict=True)
        counts = images_per_class(self.accuracy.confusion, len(self.classes))
        return [
            {"class": name, "images": count, "precision": precision, "recall": recall, "f1": f1}
            for name, count, (precision, recall, f1) in zip(self.classes, counts, shares, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the confusion matrix, which has a million numbers for ImageNet."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("accuracy", "classes")}
        totals = {name: getattr(self.accuracy, name) for name in ("images", "loss", "top1", "top5")}
        return {**fields, **totals, "per_class": self.per_class()}


def find_images(data: str | None, evalset: Path | None, split: str) -> TestImages:
    """Find the images of `--data NAME[:ROOT]` or `--evalset FOLDER`; exactly one is given.

    Raises InputError where there is no such data set, or it has no labelled images in that split.
    """
    if (data is None) == (evalset is None):
        raise InputError("give either --data NAME:ROOT, as in --data imagefolder:/data/flowers, or --evalset FOLDER")
    if evalset is not None:
        prepared = evalsets.load(evalset)
        if prepared.labels is None:
            raise InputError(f"{evalset}: has images without labels; accuracy needs them")
        labels = np.array(prepared.labels)
        digest = hashlib.sha256(prepared.sha256.encode() + labels.tobytes()).hexdigest()
        return TestImages(prepared.classes, prepared.names, labels, digest, prepared=prepared)
    assert data is not None
    found = named_data.load(data)
    samples = found.split(split)
    if not samples:
        raise InputError(f"--data {data}: has no images in its split '{split}'")
    return _of_samples(found.classes, samples)


def evaluate(
    artifacts: list[Artifact], test: TestImages, target: Target, folder: Path | None, progress: Progress
) -> list[Evaluation]:
    """Evaluate each artifact; with a folder, what is in it of the same images, file and target is not run again.

    Raises InputError where artifact and images don't fit each other or too many images can't be read.
    """
    fitted = [_fit_labels(artifact, test, target) for artifact in artifacts]  # before any work
    with tempfile.TemporaryDirectory() as temporary:
        chunks = [
            _logits(artifact, images_, target, folder or Path(temporary), progress)
            for artifact, images_ in zip(artifacts, fitted, strict=True)
        ]
        answers = [_answers(images_, paths) for images_, paths in zip(fitted, chunks, strict=True)]
    return [
        _judge(artifact, images_, target, mine, answers[0] if index else None)
        for index, (artifact, images_, mine) in enumerate(zip(artifacts, fitted, answers, strict=True))
    ]


def _of_samples(classes: tuple[str, ...], samples: tuple[Sample, ...]) -> TestImages:
    labels = [sample.label for sample in samples if sample.label is not None]
    if len(labels) != len(samples):
        raise InputError(f"{len(samples) - len(labels)} of {len(samples)} images have no label; accuracy needs them")
    only = Data(classes, (), (), samples)  # the training images are not looked at: there may be a million
    names = tuple(sample.name for sample in samples)
    return TestImages(classes, names, np.asarray(labels, np.int64), only.fingerprint(), samples)


def _fit_labels(artifact: Artifact, test: TestImages, target: Target) -> TestImages:
    """Return the images with the labels' indices in the artifact's order; the data may have fewer classes."""
    manifest = artifact.manifest
    if not manifest.dynamic_batch and manifest.input_shape[0] != target.batch:
        raise InputError(f"{artifact.path.name} has batch {manifest.input_shape[0]} fixed; give --batch with it")
    if test.prepared is not None and test.prepared.preprocessing != manifest.preprocessing:
        raise InputError(f"{artifact.path.name} was made for another preprocessing than the evaluation set's")
    unknown = [name for name in test.classes if name not in manifest.labels]
    if unknown:
        raise InputError(
            f"{artifact.path.name} does not know the class '{unknown[0]}' of the data; its {len(manifest.labels)} "
            f"classes are {', '.join(manifest.labels[:5])}{', …' if len(manifest.labels) > 5 else ''}"
        )
    index = {name: position for position, name in enumerate(manifest.labels)}
    moved = np.asarray([index[name] for name in test.classes], np.int64)
    return replace(test, classes=manifest.labels, labels=moved[test.labels])


def _logits(artifact: Artifact, test: TestImages, target: Target, out: Path, progress: Progress) -> list[Path]:
    """Make the chunks that are not there yet, and return all; NaN stands for images that could not be read."""
    folder, total = out / _key(artifact, test, target), len(test.names)
    starts = range(0, total, CHUNK)
    paths = [folder / f"{start:08d}.npy" for start in starts]
    shapes = [(min(CHUNK, total - start), len(artifact.manifest.labels)) for start in starts]
    missing = [not _is_whole(path, shape) for path, shape in zip(paths, shapes, strict=True)]
    if any(missing):
        with closing(load(artifact, target)) as session:
            for path, start, (count, _), absent in zip(paths, starts, shapes, missing, strict=True):
                if absent:
                    _write_chunk(path, _chunk(session, artifact, test, target, start, start + count, progress))
    return paths


def _key(artifact: Artifact, test: TestImages, target: Target) -> str:
    """Return the folder's name: everything that the logits depend on."""
    manifest = artifact.manifest
    run = (manifest.preprocessing, manifest.output, manifest.input_dtype, sorted(manifest.session_options.items()))
    rest = hashlib.sha256(repr((test.fingerprint, target, run)).encode()).hexdigest()
    return f"{manifest.sha256[:16]}-{rest[:16]}"


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or not an array: made again
        return False
    return bool(found.shape == shape and found.dtype == np.float32)


def _chunk(
    session: Session, artifact: Artifact, test: TestImages, target: Target, start: int, stop: int, progress: Progress
) -> Logits:
    logits = np.full((stop - start, len(artifact.manifest.labels)), np.nan, np.float32)
    done = 0
    for batch in test.batches(artifact.manifest.preprocessing, start, stop, target.batch):
        readable = [index for index, pixels in enumerate(batch) if pixels is not None]
        if readable:
            stacked = np.stack([pixels for pixels in batch if pixels is not None])
            logits[done + np.asarray(readable)] = answer(session, artifact, target, stacked)
        done += len(batch)
        progress(f"evaluate {artifact.path.stem}", start + done, len(test.names))
    return logits


def _write_chunk(path: Path, logits: Logits) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, logits)


def _decoded(samples: tuple[Sample, ...], preprocessing: Preprocessing, ahead: int) -> Iterator[Pixels | None]:
    """Decode in threads, at most `ahead` images before the one that is asked for."""
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
        return images.resize_and_crop(images.decode(sample.source), preprocessing)
    except images.UnreadableImageError:
        return None


@dataclass(frozen=True)
class _Answers:
    """What an artifact said. read: (N,) which images could be decoded; scores: of these."""

    read: npt.NDArray[np.bool_]
    scores: Scores
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = self.scores.predicted == self.labels
        return right

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """Of the classes, as another artifact may order its own in another way."""
        return np.asarray(self.classes)[self.scores.predicted]


def _answers(test: TestImages, chunks: list[Path]) -> _Answers:
    """Take from logits what metrics need, a chunk at a time."""
    parts: list[Scores] = []
    read: list[npt.NDArray[np.bool_]] = []
    for path, start in zip(chunks, range(0, len(test.names), CHUNK), strict=True):
        logits = np.load(path, allow_pickle=False)
        read.append(~np.isnan(logits[:, 0]))
        if read[-1].any():
            parts.append(scores(logits[read[-1]], test.labels[start : start + CHUNK][read[-1]]))
    there = np.concatenate(read)
    unreadable = [name for name, one in zip(test.names, there, strict=True) if not one]
    if len(unreadable) > MAX_UNREADABLE * len(there):
        raise InputError(f"{len(unreadable)} of {len(there)} images can't be read, for example {unreadable[0]}; "
                         f"more than {MAX_UNREADABLE:.0%} of them say nothing of the accuracy")  # fmt: skip
    return _Answers(there, Scores.joined(parts), test.labels[there], test.classes)


def _judge(artifact: Artifact, test: TestImages, target: Target, mine: _Answers, first: _Answers | None) -> Evaluation:
    drop, agreement = None, None
    if first is not None:
        if not np.array_equal(mine.read, first.read):
            raise CompressError("the images that can be read changed during the evaluation; run it again with --out")
        drop = top1_drop_pp(first.right, mine.right, np.ones(len(mine.right), bool), CONFIDENCE)
        agreement = float(np.mean(mine.names == first.names))
    return Evaluation(
        artifact.path.name, artifact.manifest.sha256, target, class_names(test.classes),
        accuracy_of(mine.scores, mine.labels, len(test.classes)), calibration(mine.scores, mine.labels),
        tuple(name for name, there in zip(test.names, mine.read, strict=True) if not there), drop, agreement,
    )  # fmt: skip


def tables(results: list[Evaluation]) -> dict[str | None, list[list[str]]]:
    """Return the totals of all artifacts, then the worst and best classes of each, as titled lines of cells."""
    shown: dict[str | None, list[list[str]]] = {None: _totals(results)}
    for one in results:
        known = sorted((row for row in one.per_class() if row["images"]), key=lambda row: (row["f1"], row["class"]))
        if len(known) <= 2 * SHOWN:
            shown[f"{one.artifact}: classes by F1"] = _classes(known)
        else:
            shown[f"{one.artifact}: the {SHOWN} worst of {len(known)} classes by F1"] = _classes(known[:SHOWN])
            shown[f"{one.artifact}: the {SHOWN} best"] = _classes(known[: -SHOWN - 1 : -1])
    return shown


def _totals(results: list[Evaluation]) -> list[list[str]]:
    """Return a header and a line for each artifact; columns that would say nothing are left out."""
    lines = [["artifact", "images", "unread", "top-1 %", "top-5 %", "ECE %", "drop pp", "low", "high", "same %"]]
    for one in results:
        top5 = "-" if one.accuracy.top5 is None else f"{100 * one.accuracy.top5:.2f}"
        unread = str(len(one.unreadable)) if one.unreadable else "-"
        drop = ["-"] * 3 if one.drop_pp is None else [f"{x:+.2f}" for x in astuple(one.drop_pp)]
        same = "-" if one.agreement is None else f"{100 * one.agreement:.1f}"
        lines.append([Path(one.artifact).stem, str(one.accuracy.images), unread, f"{100 * one.accuracy.top1:.2f}", top5,
                      f"{100 * one.calibration.expected_error:.2f}", *drop, same])  # fmt: skip
    said = [column for column in range(len(lines[0])) if any(line[column] != "-" for line in lines[1:])]
    return [[line[column] for column in said] for line in lines]


def _classes(rows: list[dict[str, Any]]) -> list[list[str]]:
    lines = [["class", "images", "precision", "recall", "F1"]]
    return lines + [
        [row["class"], str(row["images"]), *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1"))]
        for row in rows
    ]
