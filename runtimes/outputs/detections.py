"""Boxes of detectors: decoded from a file's outputs, with plain non-maximum suppression, and compared by mAP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtimes.outputs.kinds import Arrays

Float64 = npt.NDArray[np.float64]

SCORE_OF_OBJECTS = 0.25  # float32 boxes from this score on are the objects that INT8 has to find
SMALLEST_SCORE = 0.05  # boxes below are ignored
MAX_CANDIDATES, MAX_BOXES = 1000, 300  # of an image, before and after suppression
SUPPRESSION_IOU = 0.45
IOU_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
RECALLS = np.linspace(0, 1, 101)
ORDERED_SHARE = 0.99  # of the boxes, whose second corner has to lie after the first one


@dataclass(frozen=True)
class Boxes:
    """Boxes of an image: corners (n, 4) in any unit, scores (n,) and classes (n,); the highest score is first."""

    corners: Float64
    scores: Float64
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


Decoder = Callable[[Arrays], Boxes]  # of the outputs of one image
Convert = Callable[[Float64], Float64]


def decoder_of(outputs: Arrays) -> Decoder | None:
    """Return the function that decodes the boxes of an image, None if the outputs are in no known form.

    outputs: of one image of the float32 file, without the batch axis; they decide on the form for all images. Forms:
      boxes (A, 4) and scores (A, C), (C, A) or (A,); a background class, if there is one, is left out
      YOLO: one tensor (4 + C, A) with scores of classes, or (A, 5 + C) with a score of the object before them
      suppressed: (K, 6) with corners, score and class; (K, 7) with the image before them; or boxes (K, 4), scores (K,)
      and classes (K,)
    Boxes are two corners, or centre and size where the second corner is not after the first.
    """
    found = (form(outputs) for form in (_suppressed_rows, _suppressed_tensors, _yolo, _boxes_and_scores))
    return next((decoder for decoder in found if decoder is not None), None)


def mean_average_precision(references: Sequence[Boxes], others: Sequence[Boxes]) -> float | None:
    """Return the mAP at IoU 0.5 to 0.95 of boxes against reference boxes, image by image; None without an object.

    Objects are the reference boxes with a score of at least SCORE_OF_OBJECTS. Precision is interpolated at 101 recalls,
    as in COCO; the mean is over the classes that have objects.
    """
    objects = [_above(boxes, SCORE_OF_OBJECTS) for boxes in references]
    classes = sorted({int(number) for boxes in objects for number in boxes.classes})
    if not classes:
        return None
    precisions = [
        _average_precision([_of_class(boxes, number) for boxes in objects],
                           [_of_class(boxes, number) for boxes in others])
        for number in classes
    ]  # fmt: skip
    return float(np.mean(precisions))


def _average_precision(objects: Sequence[Boxes], candidates: Sequence[Boxes]) -> float:
    """Return the average precision of one class, averaged over all IoU thresholds."""
    image = np.concatenate([np.full(len(boxes), index) for index, boxes in enumerate(candidates)])
    scores = np.concatenate([boxes.scores for boxes in candidates])
    corners = np.concatenate([boxes.corners for boxes in candidates])
    order = np.argsort(-scores, kind="stable")
    total = sum(len(boxes) for boxes in objects)
    precisions = []
    overlaps = [intersection_over_union(corners[image == index], boxes.corners) for index, boxes in enumerate(objects)]
    position = np.concatenate([np.arange(len(boxes)) for boxes in candidates])  # of a box in its image
    for threshold in IOU_THRESHOLDS:
        free = [np.ones(len(boxes), bool) for boxes in objects]
        hits = np.zeros(len(order), bool)
        for rank, box in enumerate(order):
            shares = np.where(free[image[box]], overlaps[image[box]][position[box]], -1.0)
            if len(shares) and shares.max() >= threshold - 1e-9:
                hits[rank] = True
                free[image[box]][int(shares.argmax())] = False
        precisions.append(_interpolated(hits, total))
    return float(np.mean(precisions))


def _interpolated(hits: npt.NDArray[np.bool_], total: int) -> float:
    """Return the mean over RECALLS of the largest precision at that recall or more."""
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    positions = np.searchsorted(found / total, RECALLS - 1e-9)
    return float(np.mean(np.append(best, 0.0)[positions]))


def intersection_over_union(first: Float64, second: Float64) -> Float64:
    """Return the overlap (n, m) of boxes (n, 4) and (m, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def suppressed(corners: Float64, scores: Float64) -> Boxes:
    """Return the boxes that stay after non-maximum suppression within each class. scores: (A, C)."""
    anchors, classes = np.nonzero(scores >= SMALLEST_SCORE)
    values = scores[anchors, classes]
    order = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
    boxes = Boxes(corners[anchors[order]], values[order], classes[order].astype(np.int64))
    overlap = intersection_over_union(boxes.corners, boxes.corners)
    same = boxes.classes[:, None] == boxes.classes[None, :]
    kept = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if kept[index]:
            kept[index + 1 :] &= ~((overlap[index] > SUPPRESSION_IOU) & same[index])[index + 1 :]
    return _taken(boxes, np.flatnonzero(kept)[:MAX_BOXES])


def _suppressed_rows(outputs: Arrays) -> Decoder | None:
    """Decode (K, 6) rows of corners, score and class, or (K, 7) rows of image, corners, class and score."""
    if len(outputs) != 1 or outputs[0].ndim != 2 or outputs[0].shape[1] not in (6, 7):
        return None
    width = outputs[0].shape[1]
    columns = [0, 1, 2, 3, 4, 5] if width == 6 else [1, 2, 3, 4, 6, 5]
    rows = outputs[0][:, columns]
    if not (_are_integers(rows[:, 5]) and _are_shares(rows[:, 4]) and _are_ordered(rows[:, :4])):
        return None

    def decode(outputs: Arrays) -> Boxes:
        rows = outputs[0].reshape(-1, width)[:, columns]  # a single row may have lost its axis
        return _sorted(rows[:, :4], rows[:, 4], rows[:, 5])

    return decode


def _suppressed_tensors(outputs: Arrays) -> Decoder | None:
    """Decode boxes (K, 4) with scores (K,) and classes (K,)."""
    positions = range(len(outputs))
    corners = next((k for k in positions if outputs[k].ndim == 2 and outputs[k].shape[1] == 4), None)
    if corners is None or not _are_ordered(outputs[corners]):
        return None
    columns = [k for k in positions if outputs[k].shape == outputs[corners].shape[:1]]
    classes = next((k for k in columns if len(columns) == 2 and _are_integers(outputs[k])), None)
    scores = next((k for k in columns if k != classes and _are_shares(outputs[k])), None)
    if classes is None or scores is None:
        return None
    return lambda outputs: _sorted(outputs[corners].reshape(-1, 4), outputs[scores].ravel(), outputs[classes].ravel())


def _yolo(outputs: Arrays) -> Decoder | None:
    """Decode (4 + C, A) with scores of classes, or (A, 5 + C) with a score of the object before them."""
    if outputs[0].ndim != 2 or any(array.shape[:1] == outputs[0].shape[:1] for array in outputs[1:]):
        return None
    channels_first = outputs[0].shape[0] < outputs[0].shape[1]
    rows = outputs[0].T if channels_first else outputs[0]
    corners = _corners_of(rows[:, :4]) if rows.shape[1] > 4 else None
    if corners is None:
        return None
    are_scores = ((rows[:, 4:] >= 0) & (rows[:, 4:] <= 1)).all(axis=0)
    count = int(np.append(are_scores, False).argmin())  # coefficients of masks and key points follow
    if not count:
        return None
    return _yolo_decoder(channels_first, count, corners)


def _yolo_decoder(channels_first: bool, count: int, corners: Convert) -> Decoder:
    """Return the decoder of boxes with `count` scores; without channels first, the first is that of the object."""

    def decode(outputs: Arrays) -> Boxes:
        rows = (outputs[0].T if channels_first else outputs[0]).astype(np.float64)
        scores = rows[:, 4 : 4 + count]
        if not channels_first and count > 1:
            scores = scores[:, :1] * scores[:, 1:]
        return suppressed(corners(rows[:, :4]), scores)

    return decode


def _boxes_and_scores(outputs: Arrays) -> Decoder | None:
    """Decode boxes (A, 4) with scores (A, C), (C, A) or (A,)."""
    for index, boxes in enumerate(map(_two_axes, outputs)):
        corners = _corners_of(boxes) if boxes.ndim == 2 and boxes.shape[1] == 4 else None
        if corners is None:
            continue
        for position, scores in enumerate(map(_two_axes, outputs)):
            is_float = np.issubdtype(scores.dtype, np.floating)
            if position != index and is_float and scores.ndim <= 2 and len(boxes) in scores.shape:
                return _pair_decoder(index, position, corners, _scores_of(_by_anchor(scores, len(boxes))))
    return None


def _pair_decoder(index: int, position: int, corners: Convert, scores: Convert) -> Decoder:
    def decode(outputs: Arrays) -> Boxes:
        boxes = _two_axes(outputs[index]).astype(np.float64)
        values = _by_anchor(_two_axes(outputs[position]), len(boxes)).astype(np.float64)
        return suppressed(corners(boxes), scores(values))

    return decode


def _two_axes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (A, 1, 4) as (A, 4)."""
    return array.reshape(len(array), -1) if array.ndim == 3 and 1 in array.shape[1:] else array


def _by_anchor(scores: npt.NDArray[Any], anchors: int) -> npt.NDArray[Any]:
    return scores.reshape(anchors, -1) if len(scores) == anchors else scores.T


def _scores_of(scores: npt.NDArray[Any]) -> Convert:
    """Return the function that turns scores (A, C) into probabilities of objects, without a background class.

    Of probabilities that sum to 1, the background is the class with the largest mean. Logits are those of a softmax if
    most anchors prefer one class, else of sigmoids.
    """
    probabilities: Convert = _unchanged
    if not _are_shares(scores):
        sigmoids = _sigmoid(scores)
        if scores.shape[1] == 1 or sigmoids.mean(axis=0).max() < 0.5:
            return _sigmoid
        probabilities = _softmax
    values = probabilities(scores)
    if values.shape[1] < 2 or np.abs(values.sum(axis=1) - 1).max() > 0.02:
        return probabilities
    background = int(values.mean(axis=0).argmax())
    return lambda scores: np.delete(probabilities(scores), background, axis=1)


def _unchanged(values: Float64) -> Float64:
    return values


def _sigmoid(values: Float64) -> Float64:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))))


def _softmax(values: Float64) -> Float64:
    exponents = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _corners_of(boxes: npt.NDArray[Any]) -> Convert | None:
    """Return the function that turns boxes into two corners; None if they are neither corners nor centre and size."""
    if _are_ordered(boxes):
        return _unchanged
    return _from_centre if (boxes[:, 2:] >= 0).mean() >= ORDERED_SHARE else None


def _from_centre(boxes: Float64) -> Float64:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _are_ordered(boxes: npt.NDArray[Any]) -> bool:
    return len(boxes) == 0 or bool((boxes[:, 2:] >= boxes[:, :2]).all(axis=1).mean() >= ORDERED_SHARE)


def _are_integers(values: npt.NDArray[Any]) -> bool:
    return bool((values == np.rint(values)).all())


def _are_shares(values: npt.NDArray[Any]) -> bool:
    return bool(((values >= 0) & (values <= 1 + 1e-3)).all())


def _sorted(corners: npt.NDArray[Any], scores: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Boxes:
    corners, scores = corners.astype(np.float64), scores.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= SMALLEST_SCORE]
    return Boxes(corners[order], scores[order], classes[order].astype(np.int64))


def _above(boxes: Boxes, score: float) -> Boxes:
    return _taken(boxes, np.flatnonzero(boxes.scores >= score))


def _of_class(boxes: Boxes, number: int) -> Boxes:
    return _taken(boxes, np.flatnonzero(boxes.classes == number))


def _taken(boxes: Boxes, indices: npt.NDArray[np.int64]) -> Boxes:
    return Boxes(boxes.corners[indices], boxes.scores[indices], boxes.classes[indices])
