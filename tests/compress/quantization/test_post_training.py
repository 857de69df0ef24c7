"""The search: its attempts, which are kept, and the held-out images."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import pytest
from consoles import RecordingConsole
from onnx import helper, numpy_helper
from searches import always, deep_model, images, never, search, wide_model

from compress.quantization import post_training
from compress.quantization.calibration import calibrate
from compress.quantization.config import Quantize
from compress.quantization.correction.equalization import Equalized
from compress.quantization.correction.recovery import recover
from compress.quantization.float_layers import CompareSpeed, Speed
from compress.quantization.ort_graph import logits
from compress.quantization.post_training import split
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES
from compress.quantization.search import candidates
from export.quantize import Quantized
from runtimes.console import SilentConsole
from runtimes.errors import InputError
from runtimes.evalset import EvalSet

NEAREST, ANALYTIC = "nearest rounding", "analytic bias correction"
FED_BACK, EQUALIZED = "error feedback, bias correction in order", "error feedback after equalization"


def test_attempts_are_made_in_order_reported_and_recorded() -> None:
    console = RecordingConsole()
    best, finished = search(wide_model(), compare_speed=always, console=console)
    steps = [attempt.step for attempt in finished.attempts]
    assert steps == [NEAREST, ANALYTIC, "first 1 layers float", "first 2 layers float", FED_BACK, EQUALIZED]
    assert [line.split(":")[0] for line in console.said] == steps
    assert [line.endswith(", kept") for line in console.said] == [attempt.kept for attempt in finished.attempts]
    assert best.sqnr_db == [attempt.sqnr_db for attempt in finished.attempts if attempt.kept][-1]
    assert len(finished.held_out) == 13
    assert [attempt.step for attempt in finished.attempts] == steps


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
    monkeypatch.setattr(candidates, "recover", lambda model, quantized, *_: spoil(quantized))
    best, finished = search()
    kept = {attempt.step: attempt.kept for attempt in finished.attempts}
    assert not kept[FED_BACK]
    assert best.sqnr_db in [attempt.sqnr_db for attempt in finished.attempts if attempt.step in (NEAREST, ANALYTIC)]
    stored = onnx_graphs.constants_of(best.quantized.model)
    assert any(
        stored[name].any() for name in stored if name.endswith("_weight_quantized")
    )  # unchanged by the rejected attempt


def test_rounding_leaves_out_the_bias_correction_in_order_once_that_harms(monkeypatch: pytest.MonkeyPatch) -> None:
    in_order: list[bool] = []

    def harm(model: onnx.ModelProto, quantized: Quantized, *more: object) -> None:
        in_order.append(bool(more[-1]))
        if in_order[-1]:
            spoil(quantized)
        else:
            recover(model, quantized, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(candidates, "recover", harm)
    _, finished = search(wide_model(), Quantize(min_sqnr_db=100.0))
    steps = [attempt.step for attempt in finished.attempts]
    assert steps[steps.index(FED_BACK) :][:3] == [FED_BACK, "error feedback", EQUALIZED]
    assert "1 most sensitive operator float" in steps
    assert in_order == [True, *[False] * (len(in_order) - 1)]


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
    best, finished = search(wide_model(1e4), Quantize(allow_poor=True), compare_speed)
    tried = [attempt for attempt in finished.attempts if "layers float" in attempt.step]
    assert bool(tried) == (compare_speed is always)
    assert ("first" in best.float_nodes) == (compare_speed is always)
    assert ("first" not in best.quantized.weights) == (compare_speed is always)


@pytest.mark.parametrize("speed", ["slower", "alike", "faster"])
def test_proposed_operators_stay_float_only_if_that_is_faster(speed: Speed) -> None:
    def compare(current: Quantized, candidate: Quantized) -> Speed:
        return speed if "first" in candidate.weights else "slower"

    request = QuantizationRequest(images(40), SCHEMES["x86-vnni"], Quantize())
    model, names = onnx_graphs.residual_model(channels=3), frozenset({"depthwise"})
    best, finished = post_training.quantize(model, request, compare, propose=lambda *_: [names])
    assert best.float_nodes == (names if speed == "faster" else set())
    steps = [attempt.step for attempt in finished.attempts]
    assert ("1 operator float, as faster" in steps) == (speed == "faster")


@pytest.mark.parametrize(("count", "fit", "held_out"), [
    (10, 7, 3), (12, 8, 4), (40, 27, 13), (150, 100, 50), (256, 128, 128), (400, 128, 256)
])  # fmt: skip
def test_held_out_images_are_not_used_for_rounding(count: int, fit: int, held_out: int) -> None:
    parts = split(count)
    assert parts[1] is not None
    assert [len(part) for part in parts if part is not None] == [fit, held_out]
    for part in (parts[0], parts[1]):
        assert (np.diff(part) > 0).all()
        assert part.max() - part.min() >= 0.7 * (count - 1)  # spread over all
    assert not np.intersect1d(parts[0], parts[1]).size


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_of_few_images_none_is_held_out_and_no_agreement_is_reported(count: int) -> None:
    console = RecordingConsole()
    best, finished = search(evalset=images(count), console=console)
    assert split(count)[1] is None
    assert (finished.held_out, len(finished.judged), len(best.answers)) == (None, count, count)
    assert {attempt.agreement for attempt in finished.attempts} == {None}
    assert "too few to hold some out" in console.said[0]
    assert "give at least 10" in console.said[0]
    assert not any("agreement 1" in line or "held-out" in line for line in console.said)
    assert all("dB, on the images of the fit, " in line for line in console.said[1:])


@pytest.mark.parametrize(("key", "value"), [("min_agreement", 0.5), ("max_top1_drop_pp", 1.0), ("min_sqnr_db", 20.0)])
def test_a_budget_without_held_out_images_is_refused(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"quantize\.{key}: 9 calibration images are too few.*at least 10"):
        search(settings=Quantize.model_validate({key: value}), evalset=images(9, labels=True))


def test_recovery_gets_no_held_out_image(monkeypatch: pytest.MonkeyPatch) -> None:
    used_images: set[str] = set()

    def watch(model: onnx.ModelProto, quantized: Quantized, evalset: EvalSet, *more: object) -> None:
        used_images.update(evalset.names)
        recover(model, quantized, evalset, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(candidates, "recover", watch)
    _, finished = search(deep_model(), Quantize(min_agreement=1.0))
    assert len(used_images) == 27
    assert not used_images & set(finished.held_out.names)


def test_a_model_that_returns_nan_is_refused_with_the_image() -> None:
    model = wide_model()
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(helper.make_node("Log", ["logits"], ["y"], name="log"))
    with pytest.raises(InputError, match=r"float32 model returns NaN or infinity for the image \d+; repair"):
        search(model)


def test_one_output_without_a_sigmoid_has_no_agreement_and_no_budget() -> None:
    console, model = RecordingConsole(), onnx_graphs.binary_model(sigmoid=False)
    best, finished = search(model, console=console)
    assert "one output and no Sigmoid at its end" in console.said[0]
    assert {attempt.agreement for attempt in finished.attempts} == {None}
    assert not any("agreement 1" in line for line in console.said)
    assert best.sqnr_db > 20
    with pytest.raises(InputError, match=r"quantize\.min_agreement: the model has one output.*end the model in a Sig"):
        search(model, Quantize(min_agreement=1.0))
    assert search(model, Quantize(min_sqnr_db=20.0))[0].sqnr_db > 20


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
