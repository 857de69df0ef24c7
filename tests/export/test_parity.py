"""Tests of export.parity: agreement, SQNR and the float32 tolerance."""

from __future__ import annotations

import numpy as np
import pytest

from export.parity import compare, require_same
from runtimes.errors import CompressError

LOGITS = np.asarray([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]], np.float32)


def test_identical_logits_agree_and_have_no_noise() -> None:
    parity = compare(LOGITS, LOGITS)
    assert (parity.images, parity.agreement, parity.max_logit_difference, parity.sqnr_db) == (2, 1.0, 0.0, None)


def test_agreement_difference_and_sqnr_are_those_of_the_formula() -> None:
    other = LOGITS + np.asarray([[0, 2, 0], [0, 0, 0]], np.float32)
    parity = compare(LOGITS, other)
    assert parity.agreement == 0.5
    assert parity.max_logit_difference == 2.0
    assert parity.sqnr_db == pytest.approx(10 * np.log10(24 / 4))


def test_rounding_passes_and_a_wrong_fold_does_not() -> None:
    assert require_same(LOGITS, LOGITS + np.float32(1e-5), "m.onnx").agreement == 1.0
    with pytest.raises(CompressError, match=r"m\.onnx: logits differ by 0\.1"):
        require_same(LOGITS, LOGITS + np.float32(0.1), "m.onnx")


def test_one_column_has_no_agreement() -> None:
    """Its largest value is always the first, whatever it is."""
    parity = compare(np.ones((4, 1), np.float32), -np.ones((4, 1), np.float32))
    assert (parity.agreement, parity.max_logit_difference) == (None, 2)


def test_nan_is_never_the_same() -> None:
    with pytest.raises(CompressError, match="differ by nan"):
        require_same(LOGITS, np.full_like(LOGITS, np.nan), "m.onnx")


def test_other_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(1, 3\)"):
        compare(LOGITS, LOGITS[:1])
