"""Post-training quantization: try several methods and keep the best, judged on held-out images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from compress.quantization.calibration import calibrate
from compress.quantization.config import AGREEMENT_BUDGETS, BUDGETS, MIN_IMAGES
from compress.quantization.correction.channels import Channels, channel_statistics
from compress.quantization.correction.equalization import equalize
from compress.quantization.float_layers import CompareSpeed, Speed, leading_layers
from compress.quantization.request import QuantizationRequest, Range
from compress.quantization.search.budget import within_budget
from compress.quantization.search.candidates import (
    CalibratedGraph,
    Candidate,
    Criterion,
    Search,
    attempt,
    recovered,
)
from compress.quantization.search.float_operators import Propose, no_proposals
from compress.quantization.search.judge import Judge, Rows
from export.head import compared_tensors
from export.layers import layers_of
from export.plan import plan_quantization
from export.scheme import Scheme
from runtimes.errors import InputError
from runtimes.evalset import EvalSet, spread
from runtimes.outputs.detections import SCORE_OF_OBJECTS
from runtimes.outputs.kinds import AGREEMENT_NAMES, OutputKind

HELD_OUT_SHARE, MAX_HELD_OUT = 1 / 3, 256  # of a fifth, attempts were often ranked wrongly
CRITERIA: dict[Speed, Criterion] = {"faster": "faster", "alike": "not-worse", "little-slower": "far-better"}
ROUNDING_IMAGES = 128  # more images take minutes longer and gain some 0.01 dB


Indices = npt.NDArray[np.int64]


def quantize(
    model: onnx.ModelProto,
    request: QuantizationRequest,
    compare_speed: CompareSpeed,
    kind: OutputKind = "classes",
    propose: Propose = no_proposals,
) -> tuple[Candidate, Search]:
    """Quantize a float32 graph in standard form; return the best candidate and the search that led to it.

    compare_speed: decides whether a candidate with float layers is fast enough. propose: names operators that may be
    faster in float. With learned ranges, the weights are trained for nearest rounding, so that the search only looks
    for operators to keep in float. kind: of the outputs.
    Raises InputError as `plan_quantization` and `calibrate` do.
    """
    rounding_indices, held_out_indices = split(len(request.images))
    rounding = request.images.take(rounding_indices)
    held_out = None if held_out_indices is None else request.images.take(held_out_indices)
    judge = Judge.of(model, rounding, kind)
    if held_out is not None and len(held_out) > judge.most_images:
        held_out = held_out.spread(judge.most_images)
    judged = held_out or rounding
    reference = judge.rows(model, judged)
    _require_finite(reference, judged)
    search = Search(request, rounding, held_out, reference, judge)
    _say_what_is_not_judged(search)
    graph = _calibrated(model, search, rounding_indices)
    trained = request.learned is not None

    best = attempt(search, graph, correct=False)
    search.better(best, "as trained" if trained else "nearest rounding", best)
    if not trained:
        best = search.better(best, "analytic bias correction", attempt(search, graph))
    best = _with_float_layers(search, graph, best, compare_speed)
    best = _with_faster_operators(search, best, compare_speed, propose)
    if not trained:
        best = _with_error_feedback(search, graph, best)
    return within_budget(search, best), search


def _with_float_layers(search: Search, graph: CalibratedGraph, best: Candidate, compare: CompareSpeed) -> Candidate:
    """Try to keep the first layers float where that is not slower, or a little slower and far more accurate."""
    correct = search.request.learned is None
    for count, float_nodes in enumerate(leading_layers(graph.model), start=1):
        candidate = attempt(search, graph, float_nodes, correct)
        speed = compare(best.quantized, candidate.quantized)
        if speed != "slower":
            best = search.better(best, f"first {count} layers float", candidate, CRITERIA[speed])
    return best


def _with_faster_operators(search: Search, best: Candidate, compare: CompareSpeed, propose: Propose) -> Candidate:
    """Keep proposed operators float where that makes the file faster."""
    graph, start = best.graph, best
    for names in propose(graph.model, start.quantized):
        float_nodes = start.float_nodes | names
        candidate = attempt(search, graph, float_nodes, search.request.learned is None)
        if compare(best.quantized, candidate.quantized) == "faster":
            step = f"{len(names)} operator{'s' * (len(names) > 1)} float, as faster"
            best = search.better(best, step, candidate, "faster")
    return best


def _require_finite(reference: Rows, images: EvalSet) -> None:
    finite = np.isfinite(reference).all(axis=1)
    if not finite.all():
        name = images.names[int(finite.argmin())]
        raise InputError(f"the float32 model returns NaN or infinity for the image {name}; repair the model first")


def _say_what_is_not_judged(search: Search) -> None:
    """Say why no agreement is reported, if so; raise InputError for an accuracy budget, which then could not fail."""
    request, reason = search.request, _reason_without_agreement(search)
    if reason is None:
        return
    for name in BUDGETS if search.held_out is None else AGREEMENT_BUDGETS:
        if getattr(request.settings, name) is not None:
            raise InputError(f"quantize.{name}: {reason[0]}; {reason[1]}, or remove {name}")
    request.console.say(f"{reason[0]}, and no agreement is reported; {reason[1]}")


def _reason_without_agreement(search: Search) -> tuple[str, str] | None:
    """Return why no agreement can be reported, and the cure; None if it can."""
    kind, count = search.judge.kind, len(search.request.images)
    if search.held_out is None:
        images = "1 calibration image is" if count == 1 else f"{count} calibration images are"
        return (f"{images} too few to hold some out: attempts are judged on the images that they are fitted to",
                f"give at least {MIN_IMAGES}")  # fmt: skip
    if search.reference.shape[1] == 1:
        return ("the model has one output and no Sigmoid at its end, so that it may be no classifier",
                "for two classes, end the model in a Sigmoid")  # fmt: skip
    if kind not in AGREEMENT_NAMES:
        return f"the outputs are of the kind '{kind}', which is judged by SQNR alone", "set min_sqnr_db for a budget"
    if search.judge.agreement(search.reference, search.reference) is None:
        return (f"float32 finds no object with a score of at least {SCORE_OF_OBJECTS} in the held-out images",
                "give images with objects that the model knows")  # fmt: skip
    return None


def _calibrated(model: onnx.ModelProto, search: Search, rounding: Indices) -> CalibratedGraph:
    request = search.request
    # Ranges come from all images, held-out ones too: clipping a value that is known to occur would only cost accuracy.
    if request.learned is None:
        tensors = plan_quantization(model, request.scheme).ranged
        ranges = calibrate(model, tensors, request.images, request.settings.calibration, request.console, request.cache)
    else:
        ranges = dict(request.learned)
    tensors = _tensors_to_measure(model, request.scheme)
    statistics = channel_statistics(model, tensors, request.images, request.console, averaged=rounding)
    return CalibratedGraph(model, statistics, ranges)


def _with_error_feedback(search: Search, graph: CalibratedGraph, best: Candidate) -> Candidate:
    """Try rounding with error feedback, then the same on an equalized graph; return the best candidate."""
    float_nodes, start = best.float_nodes, best
    best = search.better(best, "error feedback, bias correction in order", recovered(search, start))
    if best is start:
        search.in_order = False
        best = search.better(best, "error feedback", recovered(search, start))
    equalized = equalize(graph.model, graph.statistics, best.quantized.plan.ranged)
    if equalized.factors:  # equalized weights are harder to round, so the gain appears only with error feedback
        statistics = equalized.scale(graph.statistics)
        ranges = _equalized_ranges(search, equalized.model, statistics)
        equalized_graph = attempt(search, CalibratedGraph(equalized.model, statistics, ranges), float_nodes)
        best = search.better(best, "error feedback after equalization", recovered(search, equalized_graph))
    return best


def split(count: int) -> tuple[Indices, Indices | None]:
    """Return the indices of the images to round on, at most 128, and of the held-out images, at most 256.

    Held out are a third of the images, or all beyond 128 where those are more.
    Both are spread evenly over all images. Of fewer than MIN_IMAGES none is held out.
    """
    if count < MIN_IMAGES:
        return np.arange(count), None
    others = max(int(count * HELD_OUT_SHARE), count - ROUNDING_IMAGES)
    held_out = spread(count, min(MAX_HELD_OUT, others))
    rest = np.setdiff1d(np.arange(count), held_out)
    return rest[spread(len(rest), ROUNDING_IMAGES)], held_out


def _tensors_to_measure(model: onnx.ModelProto, scheme: Scheme) -> list[str]:
    """Return the tensors whose channel statistics are needed: quantized ones, and inputs and outputs of layers."""
    names = plan_quantization(model, scheme).ranged
    for layer in layers_of(model).values():
        names += [layer.input, layer.output]
    return list(dict.fromkeys([*names, *compared_tensors(model)]))


def _equalized_ranges(
    search: Search, model: onnx.ModelProto, statistics: Mapping[str, Channels]
) -> Mapping[str, Range]:
    """Return the ranges of an equalized model; for min-max they follow from the scaled statistics."""
    request, tensors = search.request, plan_quantization(model, search.scheme).ranged
    if request.settings.calibration.method == "min-max":
        return {name: (float(statistics[name].low.min()), float(statistics[name].high.max())) for name in tensors}
    return calibrate(model, tensors, request.images, request.settings.calibration, request.console, request.cache)
