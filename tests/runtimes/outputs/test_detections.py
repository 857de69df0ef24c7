"""Boxes are decoded from the forms that exporters write, and compared by mAP as COCO does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.outputs.detections import Boxes, decoder_of, intersection_over_union, mean_average_precision, suppressed

CORNERS = np.asarray([[0, 0, 10, 10], [20, 20, 40, 30], [50, 0, 60, 20]], np.float32)
SCORES = np.asarray([[0.9, 0.0], [0.1, 0.8], [0.01, 0.02]], np.float32)
CENTRES = np.concatenate([(CORNERS[:, :2] + CORNERS[:, 2:]) / 2, CORNERS[:, 2:] - CORNERS[:, :2]], axis=1)
FILL = 9  # boxes without score, so that there are more anchors than channels


def filled(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, np.tile(rows[-1:] * 0 + np.asarray(rows[-1:] > 1, np.float32), (FILL, 1))])


def expect_two_objects(boxes: Boxes | None) -> None:
    assert boxes is not None
    best = boxes.scores > 0.5
    np.testing.assert_allclose(boxes.corners[best], CORNERS[:2], atol=1e-5)
    assert boxes.classes[best].tolist() == [0, 1]
    np.testing.assert_allclose(boxes.scores[best], [0.9, 0.8], rtol=1e-5)


FORMS = {
    "boxes and scores": (filled(CORNERS), filled(SCORES)),
    "scores and boxes": (filled(SCORES), filled(CORNERS)),
    "scores by class": (filled(CORNERS), filled(SCORES).T),
    "boxes with an axis of 1": (filled(CORNERS)[:, None], filled(SCORES)),
    "centres": (filled(CENTRES), filled(SCORES)),
    "yolo 8": (np.concatenate([filled(CENTRES), filled(SCORES)], axis=1).T,),
    "yolo 8 with coefficients": (
        np.concatenate([filled(CENTRES), filled(SCORES), np.full((3 + FILL, 2), -2, np.float32)], axis=1).T,
        np.zeros((32, 8, 8), np.float32),
    ),
    "yolo 5": (np.concatenate([filled(CENTRES), np.ones((3 + FILL, 1), np.float32), filled(SCORES)], axis=1),),
    "rows": (np.concatenate([CORNERS[:2], [[0.9, 0], [0.8, 1]]], axis=1).astype(np.float32),),
    "rows with the image": (
        np.concatenate([np.zeros((2, 1)), CORNERS[:2], [[0, 0.9], [1, 0.8]]], axis=1).astype(np.float32),
    ),
    "tensors": (CORNERS[:2], np.asarray([0, 1]), np.asarray([0.9, 0.8], np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_known_forms_are_decoded(form: str) -> None:
    decoder = decoder_of(FORMS[form])
    assert decoder is not None
    expect_two_objects(decoder(FORMS[form]))


def test_one_row_or_none_of_a_suppressed_file_is_decoded() -> None:
    decoder = decoder_of(FORMS["rows"])
    assert decoder is not None
    assert len(decoder((FORMS["rows"][0][0],))) == 1
    assert len(decoder((FORMS["rows"][0][:0],))) == 0


def test_a_background_class_is_left_out() -> None:
    background = np.full(3 + FILL, 0.9, np.float32)
    background[:2] = 0.1
    objects = (1 - background) * 0.9
    probabilities = np.stack([background, objects, 1 - background - objects], axis=1)
    logits = np.log(probabilities) + 3
    for scores in (probabilities, logits):
        outputs = (filled(CORNERS), scores)
        decoder = decoder_of(outputs)
        assert decoder is not None
        boxes = decoder(outputs)
        assert (boxes.scores > 0.5).sum() == 2
        assert boxes.classes[:2].tolist() == [0, 0]


def test_logits_of_sigmoids_become_probabilities() -> None:
    scores = np.full((3 + FILL, 2), -8, np.float32)
    scores[0, 0] = 3
    decoder = decoder_of((filled(CORNERS), scores))
    assert decoder is not None
    assert decoder((filled(CORNERS), scores)).scores[0] == pytest.approx(1 / (1 + np.exp(-3)))


@pytest.mark.parametrize("outputs", [
    (np.random.default_rng(0).normal(size=(90, 4)), np.random.default_rng(0).normal(size=(90, 3))),
    (np.random.default_rng(0).normal(size=(197, 64)),), (np.zeros((4, 4)),), (np.zeros((3, 8, 8)),), (np.zeros(5),),
])  # fmt: skip
def test_offsets_features_and_maps_are_no_boxes(outputs: tuple[np.ndarray, ...]) -> None:
    assert decoder_of(outputs) is None


def test_suppression_keeps_the_best_of_boxes_that_overlap_within_a_class() -> None:
    corners = np.asarray([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9]], np.float64)
    scores = np.asarray([[0.9, 0], [0.8, 0], [0, 0.7]], np.float64)
    boxes = suppressed(corners, scores)
    assert boxes.scores.tolist() == [0.9, 0.7]
    assert boxes.classes.tolist() == [0, 1]


def test_overlap() -> None:
    others = np.asarray([[1, 1, 3, 3.0], [5, 5, 6, 6], [0, 0, 2, 2]])
    shares = intersection_over_union(np.asarray([[0, 0, 2, 2.0]]), others)
    np.testing.assert_allclose(shares, [[1 / 7, 0, 1]])


def some_boxes(seed: int, count: int) -> Boxes:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 1000, (count, 2))
    corners = np.concatenate([low, low + rng.uniform(5, 50, (count, 2))], axis=1)
    return Boxes(corners, np.sort(rng.uniform(0.3, 1, count))[::-1], rng.integers(0, 3, count))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 100))
def test_map_of_equal_boxes_is_1_and_of_none_is_0(counts: list[int], seed: int) -> None:
    boxes = [some_boxes(seed + index, count) for index, count in enumerate(counts)]
    nothing = [some_boxes(0, 0) for _ in counts]
    if sum(counts) == 0:
        assert mean_average_precision(boxes, boxes) is None
        return
    assert mean_average_precision(boxes, boxes) == pytest.approx(1)
    assert mean_average_precision(boxes, nothing) == 0


def test_map_falls_with_moved_missing_and_extra_boxes() -> None:
    reference = some_boxes(3, 20)
    moved = Boxes(reference.corners + 3, reference.scores, reference.classes)
    half = Boxes(reference.corners[:10], reference.scores[:10], reference.classes[:10])
    worst = Boxes(reference.corners[::-1] + 500, reference.scores, reference.classes)
    extra = Boxes(
        np.concatenate([worst.corners[:10], reference.corners]), np.concatenate([np.ones(10), reference.scores]),
        np.concatenate([reference.classes[:10], reference.classes]),
    )  # fmt: skip
    for boxes in (moved, half, extra):
        share = mean_average_precision([reference], [boxes])
        assert share is not None
        assert 0.2 < share < 0.95


def test_half_of_the_objects_found_is_the_mean_over_recalls_up_to_a_half() -> None:
    corners = np.asarray([[0, 0, 10, 10], [50, 50, 60, 60]], np.float64)
    reference = Boxes(corners, np.asarray([0.9, 0.8]), np.zeros(2, np.int64))
    found = Boxes(corners[:1], np.asarray([0.9]), np.zeros(1, np.int64))
    assert mean_average_precision([reference], [found]) == pytest.approx(51 / 101)


def test_uncertain_boxes_are_no_objects() -> None:
    uncertain = Boxes(CORNERS[:1].astype(np.float64), np.asarray([0.2]), np.zeros(1, np.int64))
    assert mean_average_precision([uncertain], [uncertain]) is None
