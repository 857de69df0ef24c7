"""The mAP of the INT8 boxes of `bench_onnx.py` and `bench_real_onnx.py` against float32 boxes.

Objects are float32 boxes with a score of at least 0.25. The mAP is that of COCO: IoU 0.5 to 0.95, 101 recalls, all INT8
boxes with a score of at least 0.05 are ranked. Uses nothing of this package, so that no fault of it can hide.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

OBJECT, RANKED = 0.25, 0.05
SUPPRESSION_IOU, MAX_BOXES = 0.45, 200
IOUS = np.arange(0.5, 1.0, 0.05)
RECALLS = np.linspace(0, 1, 101)

Float32 = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float64]  # (n, 6): corners, score, class; the highest score is first


def mean_average_precision(reference: list[Float32], outputs: list[Float32]) -> float | None:
    """Return the mAP of the outputs of a file, each (N, …), against those of the float32 file; None without objects."""
    images = range(len(reference[0]))
    objects = [boxes[boxes[:, 4] >= OBJECT] for boxes in (_boxes([part[i] for part in reference]) for i in images)]
    ranked = [_boxes([part[i] for part in outputs]) for i in images]
    classes = sorted({int(number) for boxes in objects for number in boxes[:, 5]})
    values = [_average_precision([boxes[boxes[:, 5] == number] for boxes in objects],
                                 [boxes[boxes[:, 5] == number] for boxes in ranked], iou)
              for number in classes for iou in IOUS]  # fmt: skip
    return float(np.mean(values)) if values else None


def _boxes(outputs: list[Float32]) -> Boxes:
    """Decode scores (A, 2) with a background and boxes (A, 4), or one YOLO tensor (4 + classes, A); suppress."""
    if len(outputs) == 2:
        scores, corners = outputs[0][:, 1:], outputs[1].astype(np.float64)
    else:
        scores, (x, y, width, height) = outputs[0][4:].T, outputs[0][:4].astype(np.float64)
        corners = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    anchors, classes = np.nonzero(scores >= RANKED)
    boxes = np.column_stack([corners[anchors], scores[anchors, classes], classes]).astype(np.float64)
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept: list[int] = []
    for index, box in enumerate(boxes):
        others = boxes[[other for other in kept if boxes[other, 5] == box[5]]]
        if not len(others) or _iou(box[None], others).max() <= SUPPRESSION_IOU:
            kept.append(index)
    return boxes[kept[:MAX_BOXES]]


def _iou(first: Boxes, second: Boxes) -> Boxes:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1) for boxes in (first, second)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-12))


def _average_precision(objects: list[Boxes], ranked: list[Boxes], iou: float) -> float:
    """Return the average precision of one class at one IoU."""
    found: list[tuple[float, bool]] = []
    for truth, boxes in zip(objects, ranked, strict=True):
        overlaps, free = _iou(boxes, truth), np.ones(len(truth), bool)
        for row, box in zip(overlaps, boxes, strict=True):
            shares = np.where(free, row, -1.0)
            is_hit = bool(len(shares)) and bool(shares.max() >= iou)
            free[int(shares.argmax()) if is_hit else slice(0)] = False
            found.append((box[4], is_hit))
    hits = np.cumsum([is_hit for _, is_hit in sorted(found, key=lambda entry: -entry[0])])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(np.mean(best[np.searchsorted(hits / sum(map(len, objects)), RECALLS - 1e-9)]))
