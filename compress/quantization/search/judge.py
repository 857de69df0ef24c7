"""Judge candidates: compare the outputs of quantized graphs with those of the float32 graph, as their kind requires."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from compress.quantization.ort_graph import OrtGraph, batches, mixes_images
from export.head import Activation, compared_tensors, last_activation
from export.parity import compare
from export.subgraph import with_outputs
from runtimes.artifact import two_columns
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.outputs.comparison import Comparison, parts
from runtimes.outputs.kinds import CLASSIFIERS, Arrays, OutputKind

IDENTICAL = 1e-6  # noise below this share of the signal is float32 rounding
MAX_BYTES = 1 << 28  # of the rows of all judged images: of segmentations and detectors, fewer images are judged
CHUNK = 1 << 22  # values of rows that are compared at once

Rows = npt.NDArray[np.float32]  # (N, D): all outputs of each image, one after another


@dataclass(frozen=True)
class Judge:
    """Comparison of the outputs of a graph's candidates with its own, for images in rows (N, D).

    names, shapes, dtypes: of the compared tensors for one image. activation: that computes the first output; a single
    value after a Sigmoid is judged as the probabilities of two classes. single: whether images have to run alone, as
    the first axis of a tensor is not the batch.
    """

    kind: OutputKind
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[npt.DTypeLike, ...]
    activation: Activation | None
    single: bool = False

    @classmethod
    def of(cls, model: onnx.ModelProto, images: EvalSet, kind: OutputKind = "classes") -> Judge:
        """Return the judge of a graph's outputs; raise InputError if the size of an output depends on the image."""
        names = list(compared_tensors(model))
        single, graph = mixes_images(model, names, images), OrtGraph(with_outputs(model, names))
        runs = [graph.run({graph.inputs[0]: batch}) for batch in batches(images.head(2), graph.fixed_batch, single)]
        values = {name: runs[0][name] if single else runs[0][name][0] for name in names}
        for name, other in runs[-1].items():
            if single and name in names and other.shape != values[name].shape:
                raise InputError(
                    f"the model's output '{name}' is {values[name].shape} for one image and {other.shape} for another; "
                    "export the model without what follows its boxes and scores"
                )
        shapes = tuple(value.shape for value in values.values())
        dtypes = tuple(value.dtype for value in values.values())
        return cls(kind, tuple(values), shapes, dtypes, last_activation(model), single)

    @property
    def most_images(self) -> int:
        """Return how many images can be judged in MAX_BYTES."""
        return max(1, MAX_BYTES // (4 * sum(map(math.prod, self.shapes))))

    def rows(self, model: onnx.ModelProto, images: EvalSet) -> Rows:
        """Return the outputs of a graph for all images."""
        graph = OrtGraph(with_outputs(model, self.names))
        collected = []
        for batch in batches(images, graph.fixed_batch, self.single):
            values, count = graph.run({graph.inputs[0]: batch}), 1 if self.single else len(batch)
            collected.append(np.concatenate([values[name].reshape(count, -1).astype(np.float32)
                                             for name in self.names], axis=1))  # fmt: skip
        rows = np.concatenate(collected)[: len(images)]
        return two_columns(rows, "probabilities") if rows.shape[1] == 1 and self.activation == "Sigmoid" else rows

    def noise(self, reference: Rows, answers: Rows) -> npt.NDArray[np.float64]:
        """Return each image's Euclidean distance (N,) from float32.

        Of several outputs, each counts relative to its mean length, in the unit of the first.
        """
        lengths = [_mean_length(reference, columns) for columns in self._columns.values()]
        distances = [
            lengths[0] / length * _distances(reference, answers, columns)
            for length, columns in zip(lengths, self._columns.values(), strict=True)
        ]
        return distances[0] if len(distances) == 1 else np.sqrt(np.sum(np.square(distances), axis=0))

    def sqnr_db(self, reference: Rows, answers: Rows) -> float:
        """Return the ratio of the outputs' mean length to their mean distance from float32, in dB; the worst output's.

        A mean of squares would depend on the few images with the largest outputs, a mean of decibels on the few images
        with the smallest distances.
        """
        ratios = []
        for columns in self._columns.values():
            signal = _mean_length(reference, columns)
            noise = float(_distances(reference, answers, columns).mean())
            ratios.append(20 * math.log10(signal / max(noise, signal * IDENTICAL)))
        return min(ratios)

    def agreement(self, reference: Rows, answers: Rows) -> float | None:
        """Return the agreement with float32: top-1, mAP or equal pixels; None if the kind has none.

        None also for one value without a Sigmoid, which may be no class, and for detectors without an object.
        """
        if self.kind in CLASSIFIERS:
            classes = slice(0, reference.shape[1] if len(self.shapes) == 1 else math.prod(self.shapes[0]))
            return compare(reference[:, classes], answers[:, classes]).agreement
        comparison = Comparison(self.kind, self.names, 0.5 if self.activation else 0.0)
        for pair in zip(self._outputs(reference), self._outputs(answers), strict=True):
            comparison.add(*pair)
        return comparison.agreement()

    def _outputs(self, rows: Rows | npt.NDArray[np.float64]) -> Iterator[Arrays]:
        """Yield the outputs of each image."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        for row in rows:
            pieces = zip(np.split(row, ends), self.shapes, self.dtypes, strict=True)
            yield tuple(piece.reshape(shape).astype(dtype) for piece, shape, dtype in pieces)

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[np.int64] | slice]:
        """Columns of rows by name of the float output, all of them for a single one."""
        total = sum(map(math.prod, self.shapes))
        (positions,) = self._outputs(np.arange(total, dtype=np.float64)[None])
        named = parts(self.kind, self.names, positions)
        if len(named) < 2:
            return dict.fromkeys(named or self.names, slice(None))
        return {name: values.ravel().astype(np.int64) for name, values in named.items()}


def _mean_length(rows: Rows, columns: npt.NDArray[np.int64] | slice) -> float:
    return max(float(_distances(rows, None, columns).mean()), 1e-30)


def _distances(reference: Rows, answers: Rows | None, columns: Any) -> npt.NDArray[np.float64]:
    """Return the Euclidean length (N,) of some columns of reference - answers. columns: a slice or indices."""
    step = max(1, CHUNK // reference.shape[1])
    pieces = []
    for start in range(0, len(reference), step):
        piece = reference[start : start + step, columns].astype(np.float64)
        if answers is not None:
            piece = piece - answers[start : start + step, columns]
        pieces.append(np.linalg.norm(piece, axis=1))
    return np.concatenate(pieces)
