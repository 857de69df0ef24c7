"""Files are compared by what their outputs mean, image by image."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.outputs.comparison import Comparison, compare, parts
from runtimes.outputs.kinds import OutputKind

RNG = np.random.default_rng(0)


def rows(*shape: int) -> np.ndarray:
    return np.asarray(RNG.normal(size=shape), np.float32)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1)])
def test_classifiers_agree_on_the_largest_value(shape: tuple[int, ...]) -> None:
    first = rows(*shape)
    parity = compare("classes", ("y",), [((first,), (first * 2,)), ((first,), (-first,))])
    assert (parity.images, parity.agreement, parity.outputs_sqnr_db) == (2, 0.5, None)


@pytest.mark.parametrize(("threshold", "values", "agreement"), [
    (0.5, (0.4, 0.6), 0.0), (0.5, (0.6, 0.9), 1.0), (0.0, (0.4, 0.6), 1.0), (0.0, (-0.1, 0.1), 0.0),
])  # fmt: skip
def test_one_value_is_compared_with_the_threshold(
    threshold: float, values: tuple[float, float], agreement: float
) -> None:
    comparison = Comparison("binary", ("y",), threshold)
    comparison.add(*((np.asarray(value, np.float32),) for value in values))
    assert comparison.agreement() == agreement


def test_segmentations_agree_on_equal_pixels() -> None:
    maps = rows(4, 8, 8)
    changed = maps.copy()
    changed[:, :2] = -maps[:, :2]
    parity = compare("segmentation", ("y",), [((maps,), (changed,))])
    assert parity.agreement == pytest.approx(0.75)


def test_detectors_agree_by_map_and_boxes_are_apart_from_scores() -> None:
    boxes = np.concatenate([RNG.uniform(50, 300, (40, 2)), RNG.uniform(10, 20, (40, 2))], axis=1)
    output = np.concatenate([boxes, RNG.uniform(0.3, 1, (40, 2))], axis=1).T.astype(np.float32)
    noisy = output.copy()
    noisy[4:] += 0.01
    parity = compare("detections", ("y",), [((output,), (noisy,))])
    assert parity.agreement is not None
    assert 0.9 < parity.agreement <= 1
    assert parity.outputs_sqnr_db == {"y boxes": None, "y scores": parity.sqnr_db}


@pytest.mark.parametrize("kind", ["embedding", "other"])
def test_other_kinds_have_only_sqnr_of_every_output(kind: OutputKind) -> None:
    first, second = rows(32), rows(6)
    parity = compare(kind, ("a", "b"), [((first, second), (first * np.float32(1.1), second * np.float32(1.01)))])
    assert parity.agreement is None
    assert parity.outputs_sqnr_db == {"a": pytest.approx(20, abs=0.01), "b": pytest.approx(40, abs=0.01)}
    assert parity.sqnr_db == pytest.approx(20, abs=0.01)


def test_other_numbers_of_boxes_and_integers_have_no_sqnr() -> None:
    few, many = np.zeros((2, 6), np.float32), np.zeros((3, 6), np.float32)
    parity = compare("detections", ("y",), [((few,), (many,))])
    assert parity.outputs_sqnr_db == {}
    assert parts("other", ("y",), (np.zeros(3, np.int64),)) == {}
