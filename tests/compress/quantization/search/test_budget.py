"""Reverting the most sensitive layers to float until the budget is met."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from consoles import RecordingConsole
from searches import deep_model, images, search

from compress.quantization.config import Quantize
from compress.quantization.schemes import SCHEMES
from compress.quantization.search import budget
from compress.quantization.search.budget import sensitivities
from compress.quantization.search.candidates import CalibratedGraph, Candidate, Search
from runtimes.errors import InputError
from runtimes.lineage import Parity


@pytest.mark.parametrize(("crippled", "steps"), [((), 0), ((1,), 1), ((1, 4), 2)])
def test_only_the_crippled_layers_become_float(crippled: tuple[int, ...], steps: int) -> None:
    model = deep_model(crippled=crippled)
    free, _ = search(model)
    assert (free.agreement < 0.8) == bool(crippled)
    best, finished = search(model, Quantize(min_agreement=1.0))
    tried = [attempt.step for attempt in finished.attempts if "most sensitive" in attempt.step]
    assert tried == [f"{2**index} most sensitive layers float" for index in range(steps)]
    assert set(free.quantized.weights) - set(best.quantized.weights) == {f"conv{index}" for index in crippled}
    assert best.agreement == 1


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 53, 64, 65])
def test_every_number_of_layers_can_become_float(layers: int) -> None:
    counts = budget._float_counts(layers)
    assert counts[-1] == layers
    assert counts == sorted(set(counts))
    assert all(after <= 2 * before for before, after in itertools.pairwise(counts))
    assert counts[0] == 1


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_all_layers_become_float_if_only_that_meets_the_budget(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_meets_budget", lambda search, best: not best.quantized.weights)
    console = RecordingConsole()
    best, finished = search(deep_model(4), Quantize(min_agreement=1.0), console=console, scheme=scheme)
    tried = [attempt.step for attempt in finished.attempts if "most sensitive" in attempt.step]
    assert tried == [f"{count} most sensitive layers float" for count in (1, 2, 4, 5)]
    assert not best.quantized.weights
    assert console.said[-1].startswith("the accuracy budget is met only with all layers in float; use the float32 file")


def test_a_budget_on_top1_reverts_layers_to_float_too() -> None:
    model, evalset = deep_model(crippled=(1,)), images(40, labels=True)
    free, finished = search(model, evalset=evalset)
    positions = [int(name) for name in finished.held_out.names]
    labels = np.zeros(40, np.int64)
    labels[positions] = free.reference.argmax(
        1
    )  # float32 is always correct, so the drop equals the share of disagreements
    labelled = replace(evalset, labels=labels)
    dropped = 100 * (1 - free.agreement)
    assert dropped > 20
    loose, loosely = search(model, Quantize(max_top1_drop_pp=dropped + 0.1), evalset=labelled)
    assert not any("most sensitive" in attempt.step for attempt in loosely.attempts)
    assert "conv1" in loose.quantized.weights
    strict, _ = search(model, Quantize(max_top1_drop_pp=20.0), evalset=labelled)
    assert strict.drop_pp(labels[positions]) <= 20
    assert set(loose.quantized.weights) - set(strict.quantized.weights) == {"conv1"}


def test_a_budget_that_cannot_be_met_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_meets_budget", lambda search, best: False)
    console = RecordingConsole()
    best, finished = search(deep_model(2), Quantize(min_agreement=1.0), console=console)
    assert finished.attempts[-1].step == "3 most sensitive layers float"
    assert "is not met" in console.said[-1]
    assert f"{best.agreement:.3f}" in console.said[-1]


def test_a_drop_in_top1_needs_labels() -> None:
    with pytest.raises(InputError, match="the calibration images have no labels; set min_agreement instead"):
        search(settings=Quantize(max_top1_drop_pp=0.5))


@pytest.mark.parametrize("scheme", ["x86-vnni", "tensorrt"])
@pytest.mark.parametrize("crippled", [1, 4])
def test_the_crippled_layer_is_the_most_sensitive(crippled: int, scheme: str) -> None:
    model = deep_model(crippled=(crippled,))
    best, finished = search(model, scheme=scheme)
    ranked = sensitivities(finished, best)
    assert set(ranked) == set(best.quantized.weights)
    order = sorted(ranked, key=lambda name: ranked[name].sqnr_db or np.inf)
    assert order[0] == f"conv{crippled}"
    assert ranked[order[0]].sqnr_db < ranked[order[1]].sqnr_db - 10


def test_a_layer_without_any_signal_is_the_most_sensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of 0 have noise as large as the signal: exactly 0 dB, which differs from the None of identical logits."""

    def ranked(finished: Search, best: Candidate) -> dict[str, Parity]:
        loud = {"conv0": 12.0, "conv1": None, "conv2": 0.0, "gemm": 3.0}
        return {name: Parity(1, 1.0, 0.0, value) for name, value in loud.items()}

    monkeypatch.setattr(budget, "sensitivities", ranked)
    monkeypatch.setattr(budget, "_meets_budget", lambda finished, best: False)
    reverted: list[set[str]] = []
    attempt = budget.attempt

    def watch(
        finished: Search, graph: CalibratedGraph, float_nodes: frozenset[str] = frozenset(), correct: bool = True
    ) -> Candidate:
        reverted.append(set(float_nodes))
        return attempt(finished, graph, float_nodes, correct)

    monkeypatch.setattr(budget, "attempt", watch)
    search(deep_model(3), Quantize(min_agreement=1.0))
    assert reverted[-3:] == [{"conv2"}, {"conv2", "gemm"}, {"conv0", "conv1", "conv2", "gemm"}]
