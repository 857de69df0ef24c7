"""Reverting the most sensitive operators to float until the floor and the budgets are met."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from consoles import RecordingConsole
from searches import deep_model, images, search, shifted_model

from compress.quantization.config import Quantize
from compress.quantization.schemes import SCHEMES
from compress.quantization.search import budget
from compress.quantization.search.budget import sensitivities
from compress.quantization.search.candidates import CalibratedGraph, Candidate, Search
from runtimes.errors import CompressError, InputError


@pytest.mark.parametrize(("crippled", "steps"), [((), 0), ((1,), 1), ((1, 4), 2)])
def test_only_the_crippled_layers_become_float(crippled: tuple[int, ...], steps: int) -> None:
    model = deep_model(crippled=crippled)
    free, _ = search(model, Quantize(allow_poor=True))
    assert (free.agreement < 0.8) == bool(crippled)
    best, finished = search(model, Quantize(min_sqnr_db=30.0, allow_poor=True))
    tried = [attempt.step for attempt in finished.attempts if "most sensitive" in attempt.step]
    assert tried == ["1 most sensitive operator float", "2 most sensitive operators float"][:steps]
    assert set(free.quantized.weights) - set(best.quantized.weights) == {f"conv{index}" for index in crippled}
    assert best.sqnr_db >= 30


def test_a_budget_that_only_float_meets_is_no_error_where_the_floor_needs_less() -> None:
    console = RecordingConsole()
    best, finished = search(deep_model(crippled=(1,)), Quantize(min_sqnr_db=100.0), console=console)
    assert not best.quantized.plan.integer_nodes
    assert any(attempt.sqnr_db > budget.FLOOR_SQNR_DB for attempt in finished.attempts[:-1])
    assert console.said[-1].startswith("the accuracy budget is met only with all operators in float; use the float32")


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 53, 64, 65])
def test_every_number_of_layers_can_become_float(layers: int) -> None:
    counts = budget._float_counts(layers)
    assert counts[-1] == layers
    assert counts == sorted(set(counts))
    assert all(after <= 2 * before for before, after in itertools.pairwise(counts))
    assert counts[0] == 1


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_all_layers_become_float_if_only_that_meets_the_budget(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_unmet", lambda search, best: ["poor"] * bool(best.quantized.weights))
    console = RecordingConsole()
    best, finished = search(deep_model(4), Quantize(min_agreement=1.0), console=console, scheme=scheme)
    tried = [int(attempt.step.split()[0]) for attempt in finished.attempts if "most sensitive" in attempt.step]
    assert tried == [*(count for count in (1, 2, 4) if count < tried[-1]), tried[-1]]
    assert not best.quantized.weights
    assert console.said[-1].startswith("the accuracy budget is met only with all operators in float; use the float32")


def test_a_budget_on_top1_reverts_layers_to_float_too() -> None:
    model, evalset = deep_model(crippled=(1,)), images(40, labels=True)
    free, finished = search(model, Quantize(allow_poor=True), evalset=evalset)
    positions = [int(name) for name in finished.held_out.names]
    labels = np.zeros(40, np.int64)
    labels[positions] = free.reference.argmax(
        1
    )  # float32 is always correct, so the drop equals the share of disagreements
    labelled = replace(evalset, labels=labels)
    dropped = 100 * (1 - free.agreement)
    assert dropped > 20
    loose, loosely = search(model, Quantize(max_top1_drop_pp=dropped + 0.1, allow_poor=True), evalset=labelled)
    assert not any("most sensitive" in attempt.step for attempt in loosely.attempts)
    assert "conv1" in loose.quantized.weights
    strict, _ = search(model, Quantize(max_top1_drop_pp=20.0), evalset=labelled)
    assert strict.drop_pp(labels[positions]) <= 20
    assert set(loose.quantized.weights) - set(strict.quantized.weights) == {"conv1"}


def test_a_budget_on_sqnr_reverts_operators_to_float_too() -> None:
    free, _ = search(deep_model())
    best, _ = search(deep_model(), Quantize(min_sqnr_db=free.sqnr_db + 1))
    assert best.sqnr_db >= free.sqnr_db + 1
    assert 0 < len(best.quantized.plan.integer_nodes) < len(free.quantized.plan.integer_nodes)
    console = RecordingConsole()
    search(deep_model(2), Quantize(min_sqnr_db=199.0), console=console)
    assert "under min_sqnr_db of 199; relax the budget" in console.said[-1]


def test_a_budget_that_cannot_be_met_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_unmet", lambda search, best: ["agreement is low"])
    console = RecordingConsole()
    best, _ = search(deep_model(2), Quantize(min_agreement=1.0), console=console)
    assert not best.quantized.plan.integer_nodes
    assert console.said[-1] == "the accuracy budget is not met: agreement is low; relax the budget"


def test_a_drop_in_top1_needs_labels() -> None:
    with pytest.raises(InputError, match="the calibration images have no labels; set min_agreement instead"):
        search(settings=Quantize(max_top1_drop_pp=0.5))


@pytest.mark.parametrize("scheme", ["x86-vnni", "tensorrt"])
@pytest.mark.parametrize("crippled", [1, 4])
def test_the_crippled_layer_is_the_most_sensitive(crippled: int, scheme: str) -> None:
    model = deep_model(crippled=(crippled,))
    best, finished = search(model, Quantize(allow_poor=True), scheme=scheme)
    ranked = sensitivities(finished, best)
    assert set(ranked) == best.quantized.plan.integer_nodes > set(best.quantized.weights) - {"gemm"}
    order = sorted(ranked, key=lambda name: ranked[name])
    assert order[0] == f"conv{crippled}"
    assert ranked[order[0]] < ranked[order[1]] - 10


def test_the_most_sensitive_operators_are_reverted_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def ranked(finished: Search, best: Candidate) -> dict[str, float]:
        return {"conv0": 12.0, "conv1": 120.0, "conv2": 0.0, "gemm": 3.0}

    monkeypatch.setattr(budget, "sensitivities", ranked)
    monkeypatch.setattr(budget, "_unmet", lambda finished, best: ["poor"])
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


def test_operators_without_weights_are_reverted_for_the_floor_too() -> None:
    """An Add that shifts all values by a large number ruins them in 8 bits; nothing is asked for but the floor."""
    model = shifted_model()
    free, _ = search(model, Quantize(allow_poor=True))
    assert free.sqnr_db < 10
    best, finished = search(model)
    assert best.sqnr_db > 10
    assert best.agreement >= 0.9
    assert {operator.name for operator in finished.reverted} == best.float_nodes >= {"shift"}
    assert all(operator.op == "Add" for operator in finished.reverted)
    assert set(best.quantized.weights) == set(free.quantized.weights)


def test_nothing_is_reverted_where_the_floor_holds() -> None:
    best, finished = search()
    assert best.sqnr_db > 10
    assert (finished.reverted, finished.before_reverting) == ((), None)


def test_a_network_that_only_float_computes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FLOOR_SQNR_DB", 110.0)
    with pytest.raises(CompressError, match=r"its SQNR is [\d.]+ dB, under 110 dB, and only float .*--allow-poor"):
        search()
    best, _ = search(settings=Quantize(allow_poor=True))
    assert best.quantized.plan.integer_nodes


def test_the_floor_of_a_trained_network_is_its_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the stage qat, float32 without the trained rounding is no reference for the size of errors."""
    best, finished = search()
    monkeypatch.setattr(budget, "FLOOR_SQNR_DB", 110.0)
    trained = replace(finished, request=replace(finished.request, learned={}))
    assert budget._below_floor(finished, best)
    assert not budget._below_floor(trained, best)
    assert budget._below_floor(trained, replace(best, answers=-best.reference)) == ["its agreement is 0.000, under 0.9"]


def test_answers_of_nan_are_the_worst() -> None:
    best, finished = search()
    reference = np.ones((4, 5), np.float32)
    ruined = replace(best, reference=reference, answers=np.nan_to_num(reference * np.nan, nan=1e9))
    sound = replace(ruined, answers=reference + 1)
    assert ruined.sqnr_db < -100
    assert finished.better(ruined, "sound", sound) is sound
    assert finished.better(sound, "ruined", ruined, "not-worse") is sound
