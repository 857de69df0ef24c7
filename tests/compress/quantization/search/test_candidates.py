"""Candidates: their figures, and which of two is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_graphs
import pytest
from searches import PREPROCESSING, images, search, wide_model

from compress.quantization.config import Quantize
from compress.quantization.ort_graph import OrtGraph, logits
from compress.quantization.search import judge


def test_the_best_candidate_has_the_logits_of_its_model() -> None:
    best, finished = search(wide_model())
    expected = logits(wide_model(), finished.held_out)
    np.testing.assert_array_equal(best.reference, expected)
    np.testing.assert_array_equal(best.answers, logits(best.quantized.model, finished.held_out))
    distances = np.sqrt(np.sum((expected.astype(np.float64) - best.answers) ** 2, 1))
    np.testing.assert_allclose(best.noise, distances)
    lengths = np.sqrt(np.sum(expected.astype(np.float64) ** 2, 1))
    assert best.sqnr_db == pytest.approx(20 * np.log10(lengths.mean() / distances.mean()))
    assert best.agreement == np.mean(expected.argmax(1) == best.answers.argmax(1))


def test_identical_logits_are_120_db_and_the_drop_is_in_percentage_points() -> None:
    best, _ = search()
    same = replace(best, answers=best.reference)
    assert same.sqnr_db == pytest.approx(120)
    assert same.agreement == 1
    reference, answers = np.eye(5, dtype=np.float32)[[0, 1, 2, 3]], np.eye(5, dtype=np.float32)[[0, 1, 0, 0]]
    changed = replace(best, reference=reference, answers=answers)
    assert changed.agreement == 0.5
    assert changed.drop_pp(np.asarray([0, 1, 2, 4])) == 25
    assert changed.drop_pp(np.asarray([0, 0, 0, 0])) == -50


@pytest.mark.parametrize(("wins", "kept", "kept_if_free"), [
    ([3.0, 1.0, 2.0, 2.0], True, True),  # by 2, standard error 0.4
    ([9.0, -7.0, 1.0, 1.0], True, True),  # by 1, standard error 3.3
    ([-9.0, 7.0, -1.0, -1.0], False, True),
    ([-3.0, -1.0, -2.0, -2.0], False, False),
    ([0.0, 0.0, 0.0, 0.0], False, True),
])  # fmt: skip
def test_a_step_is_kept_if_it_gains_and_a_free_one_if_it_does_not_clearly_lose(
    wins: list[float], kept: bool, kept_if_free: bool
) -> None:
    best, finished = search()
    reference = np.zeros((4, 5), np.float32)
    before, after = reference.copy(), reference.copy()
    before[:, 2], after[:, 3] = 20, 20 - np.asarray(wins)
    best = replace(best, reference=reference, answers=before)
    candidate = replace(best, answers=after)
    assert (finished.better(best, "a step", candidate) is candidate) == kept
    assert (finished.better(best, "a free step", candidate, "not-worse") is candidate) == kept_if_free
    assert [attempt.kept for attempt in finished.attempts[-2:]] == [kept, kept_if_free]


@pytest.mark.parametrize(("noise", "flips", "kept"), [(0.1, False, True), (5.0, False, False), (0.1, True, False)])
def test_a_faster_step_is_kept_if_its_noise_is_negligible(noise: float, flips: bool, kept: bool) -> None:
    """The length of the logits is 10: noise of 0.1 is at -40 dB, noise of 5 at -6 dB."""
    best, finished = search()
    reference = np.tile(np.asarray([10, 0, 0, 0, 0], np.float32), (40, 1))
    before, after = reference.copy(), reference.copy()
    before[:, 1], after[:, 1] = noise / 2, noise
    if flips:
        reference[0, 4] = before[0, 4] = 10 - 1e-3
        after[0, 4] = 10 + 1e-3
    best = replace(best, reference=reference, answers=before)
    candidate = replace(best, answers=after)
    assert (finished.better(best, "a free step", candidate, "not-worse") is candidate) is False
    assert (finished.better(best, "a faster one", candidate, "faster") is candidate) == kept


@pytest.mark.parametrize(("share", "noise", "kept"), [(0.6, 0.5, True), (0.8, 0.5, False), (0.6, 1e-3, False)])
def test_a_slower_step_is_kept_if_it_removes_much_of_a_large_noise(share: float, noise: float, kept: bool) -> None:
    best, finished = search()
    before = replace(best, answers=best.reference * np.float32(1 + noise))
    after = replace(best, answers=best.reference * np.float32(1 + noise * share))
    assert (finished.better(before, "a slower step", after, "far-better") is after) == kept
    assert finished.attempts[-1].kept is kept  # a bool of Python, which JSON can hold


def test_the_answers_of_one_sigmoid_can_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shifted(OrtGraph):
        def __init__(self, model: onnx.ModelProto) -> None:
            super().__init__(model)
            self.shift = 0.2 * any(node.op_type == "QuantizeLinear" for node in model.graph.node)

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: np.clip(values + self.shift, 0, 1) for name, values in super().run(inputs).items()}

    monkeypatch.setattr(judge, "OrtGraph", Shifted)
    model = onnx_graphs.binary_model(images=PREPROCESSING.normalize(images(40).images))
    best, _ = search(model, Quantize(allow_poor=True))
    assert best.answers.shape == (13, 2)
    np.testing.assert_allclose(best.answers.sum(1), 1, rtol=1e-5)
    agreement = np.mean((best.reference[:, 1] > 0.5) == (best.answers[:, 1] > 0.5))
    assert best.agreement == agreement < 1
