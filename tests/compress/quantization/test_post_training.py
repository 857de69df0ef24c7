"""The search: its attempts, which are kept, the held-out images, and reverting layers to float to meet the budget."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphs
import pytest
from consoles import RecordingConsole
from onnx import helper, numpy_helper

from compress.quantization import post_training
from compress.quantization.calibration import calibrate
from compress.quantization.config import Quantize
from compress.quantization.correction.equalization import Equalized
from compress.quantization.correction.recovery import recover
from compress.quantization.float_layers import CompareSpeed, Speed
from compress.quantization.ort_graph import logits
from compress.quantization.post_training import CalibratedGraph, Candidate, Search, sensitivities, split
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES
from export.quantize import Quantized
from runtimes.console import Console, SilentConsole
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.lineage import Parity
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
NEAREST, ANALYTIC = "nearest rounding", "analytic bias correction"
FED_BACK, EQUALIZED = "error feedback, bias correction in order", "error feedback after equalization"
Array = np.ndarray


def never(*_: object) -> Speed:
    """Return that float layers are slower."""
    return "slower"


def always(*_: object) -> Speed:
    """Return that float layers are as fast."""
    return "alike"


def images(count: int, labels: bool = False) -> EvalSet:
    rng = np.random.default_rng(0)
    pixels = (rng.integers(0, 256, (count, 1, 1, 3)) + rng.normal(0, 30, (count, 8, 8, 3))).clip(0, 255)
    evalset = rng.integers(0, 5, count) if labels else None
    names = tuple(map(str, range(count)))
    return EvalSet(pixels.astype(np.uint8), evalset, names, tuple("abcde"), PREPROCESSING, "digest")


def wide_model(spread: float = 100.0) -> onnx.ModelProto:
    """Return a network whose channels after the first layer differ by the factor `spread`."""
    rng = np.random.default_rng(0)
    size = np.geomspace(1, 1 / spread, 8).astype(np.float32)
    constants = {
        "w1": rng.normal(0, 1, (8, 3, 3, 3)).astype(np.float32) * size[:, None, None, None], "b1": size,
        "w2": rng.normal(0, 1, (8, 8, 1, 1)).astype(np.float32) / size[:, None, None], "b2": np.ones(8, np.float32),
        "w3": rng.normal(0, 1, (5, 8)).astype(np.float32), "b3": np.zeros(5, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second"),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="gemm", transB=1),
    ]
    return onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)


def deep_model(blocks: int = 6, crippled: tuple[int, ...] = ()) -> onnx.ModelProto:
    """Return a chain of 1x1 layers.

    A crippled layer has a weight of a million on an input that is always 0, so that all other weights of its row round
    to 0, even after equalization makes the large one 32 times smaller.
    """
    rng = np.random.default_rng(0)
    constants, nodes, evalset = {}, [], "x"
    for index in range(blocks):
        channels = 3 if index == 0 else 8
        constants[f"w{index}"] = (rng.normal(0, 1, (8, channels, 1, 1)) / np.sqrt(channels)).astype(np.float32)
        constants[f"b{index}"] = rng.normal(0.5, 0.5, 8).astype(np.float32)
        if index in crippled:
            constants[f"b{index - 1}"][0] = -1000
            constants[f"w{index}"][:, 0] = 1e6
        nodes += [
            helper.make_node("Conv", [evalset, f"w{index}", f"b{index}"], [f"c{index}"], name=f"conv{index}"),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"),
        ]
        evalset = f"r{index}"
    constants |= {"w": rng.normal(0, 1, (5, 8)).astype(np.float32), "b": np.zeros(5, np.float32)}
    nodes += [
        helper.make_node("GlobalAveragePool", [evalset], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="gemm", transB=1),
    ]
    model = onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)
    return _centred(model)


def _centred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Set the last layer's biases so that its mean logits are 0 and images have different top-1 classes."""
    mean = logits(model, images(40)).mean(0)
    for tensor in model.graph.initializer:
        if tensor.name == "b":
            tensor.CopyFrom(numpy_helper.from_array(-mean, "b"))
    return model


def search(
    model: onnx.ModelProto | None = None, settings: Quantize | None = None, compare_speed: CompareSpeed = never,
    evalset: EvalSet | None = None, scheme: str = "x86-vnni", console: Console | None = None,
) -> tuple[Candidate, Search]:  # fmt: skip
    request = QuantizationRequest(
        evalset or images(40), SCHEMES[scheme], settings or Quantize(), console or SilentConsole()
    )
    return post_training.quantize(model or onnx_graphs.residual_model(channels=3), request, compare_speed)


def test_attempts_are_made_in_order_reported_and_recorded() -> None:
    console = RecordingConsole()
    best, finished = search(wide_model(), compare_speed=always, console=console)
    steps = [attempt.step for attempt in finished.attempts]
    assert steps == [NEAREST, ANALYTIC, "first 1 layers float", "first 2 layers float", FED_BACK, EQUALIZED]
    assert [line.split(":")[0] for line in console.said] == steps
    assert [line.endswith(", kept") for line in console.said] == [attempt.kept for attempt in finished.attempts]
    assert best.sqnr_db == [attempt.sqnr_db for attempt in finished.attempts if attempt.kept][-1]
    assert len(finished.held_out) == 8
    assert [attempt.step for attempt in finished.attempts] == steps


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
    ([9.0, -7.0, 1.0, 1.0], False, True),  # by 1, standard error 3.3
    ([-9.0, 7.0, -1.0, -1.0], False, True),
    ([-3.0, -1.0, -2.0, -2.0], False, False),
    ([0.0, 0.0, 0.0, 0.0], False, True),
])  # fmt: skip
def test_a_step_is_kept_if_it_gains_more_than_its_standard_error(
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


def test_equalization_is_kept_if_channels_differ() -> None:
    _, finished = search(wide_model())
    by_step = {attempt.step: attempt for attempt in finished.attempts}
    assert by_step[EQUALIZED].kept
    assert by_step[EQUALIZED].sqnr_db > by_step[FED_BACK].sqnr_db + 5


def spoil(quantized: Quantized) -> None:
    for tensor in quantized.model.graph.initializer:
        if tensor.name.endswith("_weight_quantized"):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))


def test_error_feedback_that_harms_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_training, "recover", lambda model, quantized, *_: spoil(quantized))
    best, finished = search()
    kept = {attempt.step: attempt.kept for attempt in finished.attempts}
    assert not kept[FED_BACK]
    assert best.sqnr_db in [attempt.sqnr_db for attempt in finished.attempts if attempt.step in (NEAREST, ANALYTIC)]
    stored = onnx_graphs.constants_of(best.quantized.model)
    assert any(
        stored[name].any() for name in stored if name.endswith("_weight_quantized")
    )  # unchanged by the rejected attempt


def test_equalization_that_harms_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def harm(model: onnx.ModelProto, statistics: dict, quantized: object) -> Equalized:
        other = wide_model()
        for tensor in other.graph.initializer:
            if tensor.name == "w3":
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), "w3"))
        return Equalized(other, {"r1": np.ones(8)})

    monkeypatch.setattr(post_training, "equalize", harm)
    best, finished = search(wide_model())
    harmed = finished.attempts[-1]
    assert (harmed.step, harmed.kept) == (EQUALIZED, False)
    assert best.sqnr_db == max(attempt.sqnr_db for attempt in finished.attempts) > harmed.sqnr_db + 10
    np.testing.assert_array_equal(best.answers, logits(best.quantized.model, finished.held_out))


@pytest.mark.parametrize("compare_speed", [never, always])
def test_the_first_layers_stay_float_only_if_that_is_not_slower(compare_speed: CompareSpeed) -> None:
    best, finished = search(wide_model(1e4), compare_speed=compare_speed)
    tried = [attempt for attempt in finished.attempts if "layers float" in attempt.step]
    assert bool(tried) == (compare_speed is always)
    assert ("first" in best.float_nodes) == (compare_speed is always)
    assert ("first" not in best.quantized.weights) == (compare_speed is always)


@pytest.mark.parametrize(("count", "fit", "held_out"), [
    (10, 8, 2), (11, 9, 2), (40, 32, 8), (150, 120, 30), (256, 128, 128), (400, 128, 256)
])  # fmt: skip
def test_held_out_images_are_not_used_for_rounding(count: int, fit: int, held_out: int) -> None:
    parts = split(images(count))
    assert [len(part) for part in parts] == [fit, held_out]
    for part in parts:
        assert len(set(part.names)) == len(part)
        positions = [int(name) for name in part.names]
        assert positions == sorted(positions)
        assert max(positions) - min(positions) >= 0.7 * (count - 1)  # spread over all
    assert not set(parts[0].names) & set(parts[1].names)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_of_few_images_none_is_held_out_and_no_agreement_is_reported(count: int) -> None:
    console = RecordingConsole()
    best, finished = search(evalset=images(count), console=console)
    assert split(images(count))[1] is None
    assert (finished.held_out, len(finished.judged), len(best.answers)) == (None, count, count)
    assert {attempt.agreement for attempt in finished.attempts} == {None}
    assert "too few to hold some out" in console.said[0]
    assert "give at least 10" in console.said[0]
    assert not any("agreement 1" in line or "held-out" in line for line in console.said)
    assert all("dB, on the images of the fit, " in line for line in console.said[1:])


@pytest.mark.parametrize(("key", "value"), [("min_agreement", 0.5), ("max_top1_drop_pp", 1.0)])
def test_a_budget_without_held_out_images_is_refused(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"quantize\.{key}: 9 calibration images are too few.*at least 10"):
        search(settings=Quantize.model_validate({key: value}), evalset=images(9, labels=True))


def test_recovery_gets_no_held_out_image(monkeypatch: pytest.MonkeyPatch) -> None:
    used_images: set[str] = set()

    def watch(model: onnx.ModelProto, quantized: Quantized, scheme: object, evalset: EvalSet, *more: object) -> None:
        used_images.update(evalset.names)
        recover(model, quantized, scheme, evalset, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(post_training, "recover", watch)
    _, finished = search(deep_model(), Quantize(min_agreement=1.0))
    assert len(used_images) == 32
    assert not used_images & set(finished.held_out.names)


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


def test_the_answers_of_one_sigmoid_can_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(model: onnx.ModelProto, evalset: EvalSet) -> Array:
        is_quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        return np.clip(logits(model, evalset) + 0.2 * is_quantized, 0, 1).astype(np.float32)

    monkeypatch.setattr(post_training, "logits", shifted)
    best, _ = search(onnx_graphs.binary_model(images=PREPROCESSING.normalize(images(40).images)))
    assert best.answers.shape == (8, 2)
    np.testing.assert_allclose(best.answers.sum(1), 1, rtol=1e-5)
    agreement = np.mean((best.reference[:, 1] > 0.5) == (best.answers[:, 1] > 0.5))
    assert best.agreement == agreement < 1


def test_one_output_without_a_sigmoid_has_no_agreement_and_no_budget() -> None:
    console, model = RecordingConsole(), onnx_graphs.binary_model(sigmoid=False)
    best, finished = search(model, console=console)
    assert "one output and no Sigmoid at its end" in console.said[0]
    assert {attempt.agreement for attempt in finished.attempts} == {None}
    assert not any("agreement 1" in line for line in console.said)
    assert best.sqnr_db > 20
    with pytest.raises(InputError, match=r"quantize\.min_agreement: the model has one output.*end the model in a Sig"):
        search(model, Quantize(min_agreement=1.0))


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 53, 64, 65])
def test_every_number_of_layers_can_become_float(layers: int) -> None:
    counts = post_training._float_counts(layers)
    assert counts[-1] == layers
    assert counts == sorted(set(counts))
    assert all(after <= 2 * before for before, after in itertools.pairwise(counts))
    assert counts[0] == 1


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_all_layers_become_float_if_only_that_meets_the_budget(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_training, "_meets_budget", lambda search, best: not best.quantized.weights)
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
    monkeypatch.setattr(post_training, "_meets_budget", lambda search, best: False)
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

    monkeypatch.setattr(post_training, "sensitivities", ranked)
    monkeypatch.setattr(post_training, "_meets_budget", lambda finished, best: False)
    reverted: list[set[str]] = []
    attempt = post_training._attempt

    def watch(
        finished: Search, graph: CalibratedGraph, float_nodes: frozenset[str] = frozenset(), correct: bool = True
    ) -> Candidate:
        reverted.append(set(float_nodes))
        return attempt(finished, graph, float_nodes, correct)

    monkeypatch.setattr(post_training, "_attempt", watch)
    search(deep_model(3), Quantize(min_agreement=1.0))
    assert reverted[-3:] == [{"conv2"}, {"conv2", "gemm"}, {"conv0", "conv1", "conv2", "gemm"}]


@pytest.mark.parametrize("method", ["min-max", "percentile"])
def test_ranges_of_an_equalized_model_equal_calibrated_ones(method: str) -> None:
    settings = Quantize(calibration={"method": method})
    best, finished = search(wide_model(), settings)
    assert finished.attempts[-1].kept  # the equalized one
    measured = calibrate(best.graph.model, list(best.graph.ranges), images(40), settings.calibration, SilentConsole())
    for name, known in best.graph.ranges.items():
        assert known == pytest.approx(measured[name], rel=1e-3, abs=1e-5)


def test_learned_ranges_are_used_unchanged_with_nearest_rounding() -> None:
    model = wide_model()
    plain, _ = search(model)
    learned = {name: (low / 2, high / 2) for name, (low, high) in plain.graph.ranges.items()}
    request = QuantizationRequest(images(40), SCHEMES["x86-vnni"], Quantize(), learned=learned)
    best, finished = post_training.quantize(model, request, never)
    assert [attempt.step for attempt in finished.attempts] == ["as trained"]
    assert best.graph.ranges == learned
