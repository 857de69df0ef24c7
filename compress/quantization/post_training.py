"""Post-training quantization: try several methods and keep the best, judged on held-out images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx

from compress.quantization.calibration import calibrate
from compress.quantization.config import MIN_IMAGES
from compress.quantization.correction.channels import Channels, channel_statistics
from compress.quantization.correction.equalization import equalize
from compress.quantization.correction.recovery import analytic_bias, correct_biases, recover
from compress.quantization.float_layers import CompareSpeed, leading_layers
from compress.quantization.ort_graph import logits
from compress.quantization.request import QuantizationRequest, Range
from export.head import Activation, last_activation
from export.layers import layers_of
from export.parity import compare
from export.plan import plan_quantization
from export.quantize import Quantized, insert_qdq
from export.scheme import Scheme
from runtimes.artifact import two_columns
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.lineage import Attempt, Parity

HELD_OUT_SHARE, MAX_HELD_OUT = 0.2, 256
ROUNDING_IMAGES = 128  # more images take minutes longer and gain some 0.01 dB
SENSITIVITY_IMAGES = 16
NEGLIGIBLE_NOISE_DB = 30.0  # SQNR above which noise is below 3 % of the logits' length
IDENTICAL = 1e-6  # noise below this share of the signal is float32 rounding

# Condition for keeping a candidate instead of the best so far.
#   better     less noise, by more than one standard error
#   not-worse  not more noise, by more than one standard error
#   faster     as not-worse, or with negligible noise and no lower agreement: for candidates that reduce latency
Criterion = Literal["better", "not-worse", "faster"]


@dataclass(frozen=True)
class CalibratedGraph:
    """A float32 graph, and what calibration measured of its tensors.

    statistics: low and high of each channel over all images, mean over the rounding images.
    ranges: (low, high) of each tensor to quantize.
    """

    model: onnx.ModelProto
    statistics: Mapping[str, Channels]
    ranges: Mapping[str, Range]


@dataclass(frozen=True)
class Candidate:
    """A quantized model, the float32 graph it is made from, and both models' logits (N, classes) of the judged images.

    float_nodes: names of the nodes that stay float. reference: logits of the float32 graph. answers: of the quantized.
    """

    graph: CalibratedGraph
    float_nodes: frozenset[str]
    quantized: Quantized
    reference: npt.NDArray[np.float32]
    answers: npt.NDArray[np.float32]

    @property
    def noise(self) -> npt.NDArray[np.float64]:
        """Return each image's Euclidean distance (N,) from the float32 logits."""
        distances: npt.NDArray[np.float64] = np.linalg.norm(self.reference.astype(np.float64) - self.answers, axis=1)
        return distances

    @property
    def sqnr_db(self) -> float:
        """Return the ratio of the logits' mean length to their mean distance from float32, in dB.

        A mean of squares would depend on the few images with the largest logits, a mean of decibels on the few images
        with the smallest distances.
        """
        signal = max(float(np.linalg.norm(self.reference.astype(np.float64), axis=1).mean()), 1e-30)
        return 20 * math.log10(signal / max(float(self.noise.mean()), signal * IDENTICAL))

    @property
    def agreement(self) -> float | None:
        """Return the share of images with the same top-1 as float32; None with one column, where it is always 1."""
        return compare(self.reference, self.answers).agreement

    def agrees_as_often_as(self, other: Candidate) -> bool:
        """Return whether no fewer images have float32's top-1."""
        return self.agreement is None or other.agreement is None or self.agreement >= other.agreement

    def drop_pp(self, labels: npt.NDArray[np.int64]) -> float:
        """Return how many percentage points top-1 is below that of float32."""
        accuracies = [float(np.mean(logits.argmax(1) == labels)) for logits in (self.reference, self.answers)]
        return 100 * (accuracies[0] - accuracies[1])


@dataclass
class Search:
    """Request, images and reference that all attempts share, and the attempts so far.

    rounding: images to round weights on. held_out: images to judge on; None if there are too few to hold some out, so
    that attempts are judged on the rounding images. reference: float32 logits of the judged images. activation: that
    computes the graph's output.
    """

    request: QuantizationRequest
    rounding: EvalSet
    held_out: EvalSet | None
    reference: npt.NDArray[np.float32]
    activation: Activation | None
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def judged(self) -> EvalSet:
        """Return the images on which attempts are judged."""
        return self.held_out or self.rounding

    def answers(self, model: onnx.ModelProto, images: EvalSet) -> npt.NDArray[np.float32]:
        """Return the outputs (N, classes) of a graph; a sigmoid's as the probabilities of two classes."""
        return _answers(model, images, self.activation)

    @property
    def scheme(self) -> Scheme:
        """Return the scheme of the request."""
        return self.request.scheme

    def better(self, best: Candidate, step: str, candidate: Candidate, criterion: Criterion = "better") -> Candidate:
        """Record an attempt and return the better candidate of the two.

        Differences within one standard error decide nothing (as in Breiman et al., CART, 1984, section 3.4.3).
        """
        gain = best.noise - candidate.noise
        mean = float(gain.mean())
        error = float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
        kept = candidate is best or (mean > error if criterion == "better" else mean >= -error)
        negligible = candidate.sqnr_db >= NEGLIGIBLE_NOISE_DB and candidate.agrees_as_often_as(best)
        kept = kept or (criterion == "faster" and negligible)
        agreement = candidate.agreement if self.held_out else None  # on images of the fit it would always be high
        self.attempts.append(Attempt(step, candidate.sqnr_db, agreement, kept))
        judged = "" if self.held_out else ", on the images of the fit"
        same = "" if agreement is None else f", agreement {agreement:.3f}"
        self.request.console.say(
            f"{step}: SQNR {candidate.sqnr_db:.1f} dB{judged}{same}, {'kept' if kept else 'not kept'}"
        )
        return candidate if kept else best


def quantize(
    model: onnx.ModelProto, request: QuantizationRequest, compare_speed: CompareSpeed
) -> tuple[Candidate, Search]:
    """Quantize a float32 graph in standard form; return the best candidate and the search that led to it.

    compare_speed: decides whether a candidate with float layers is fast enough. With learned ranges, the weights are
    trained for nearest rounding, so that the search only looks for layers to keep in float.
    Raises InputError as `plan_quantization` and `calibrate` do.
    """
    rounding, held_out = split(request.images)
    activation = last_activation(model)
    search = Search(request, rounding, held_out, _answers(model, held_out or rounding, activation), activation)
    _say_what_is_not_judged(search)
    graph = _calibrated(model, search)
    trained = request.learned is not None

    best = _attempt(search, graph, correct=False)
    search.better(best, "as trained" if trained else "nearest rounding", best)
    if not trained:
        best = search.better(best, "analytic bias correction", _attempt(search, graph))
    for float_nodes in leading_layers(model):
        candidate = _attempt(search, graph, float_nodes, correct=not trained)
        speed = compare_speed(best.quantized, candidate.quantized)
        if speed != "slower":
            step = f"first {len(float_nodes)} layers float"
            best = search.better(best, step, candidate, "faster" if speed == "faster" else "not-worse")
    if not trained:
        best = _with_error_feedback(search, graph, best)
    return _within_budget(search, best), search


def _answers(model: onnx.ModelProto, images: EvalSet, activation: Activation | None) -> npt.NDArray[np.float32]:
    outputs = logits(model, images)
    return two_columns(outputs, "probabilities") if outputs.shape[1] == 1 and activation == "Sigmoid" else outputs


def _say_what_is_not_judged(search: Search) -> None:
    """Say why no agreement is reported, if so; raise InputError for an accuracy budget, which then could not fail."""
    request, count = search.request, len(search.request.images)
    if search.reference.shape[1] == 1:
        reason = "the model has one output and no Sigmoid at its end, so that it may be no classifier"
        cure = "for two classes, end the model in a Sigmoid"
    elif search.held_out is None:
        images = "1 calibration image is" if count == 1 else f"{count} calibration images are"
        reason = f"{images} too few to hold some out: attempts are judged on the images that they are fitted to"
        cure = f"give at least {MIN_IMAGES}"
    else:
        return
    for name in ("min_agreement", "max_top1_drop_pp"):
        if getattr(request.settings, name) is not None:
            raise InputError(f"quantize.{name}: {reason}; {cure}, or remove {name}")
    request.console.say(f"{reason}, and no agreement is reported; {cure}")


def _calibrated(model: onnx.ModelProto, search: Search) -> CalibratedGraph:
    request = search.request
    # Ranges come from all images, held-out ones too: clipping a value that is known to occur would only cost accuracy.
    if request.learned is None:
        tensors = plan_quantization(model, request.scheme).ranged
        ranges = calibrate(model, tensors, request.images, request.settings.calibration, request.console, request.cache)
    else:
        ranges = dict(request.learned)
    extremes = channel_statistics(model, _tensors_to_measure(model, request.scheme), request.images, request.console)
    means = channel_statistics(model, list(extremes), search.rounding, request.console)
    statistics = {name: replace(channels, mean=means[name].mean) for name, channels in extremes.items()}
    return CalibratedGraph(model, statistics, ranges)


def _with_error_feedback(search: Search, graph: CalibratedGraph, best: Candidate) -> Candidate:
    """Try rounding with error feedback, then the same on an equalized graph; return the best candidate."""
    float_nodes = best.float_nodes
    best = search.better(best, "error feedback, bias correction in order", _recovered(search, best))
    equalized = equalize(graph.model, graph.statistics, best.quantized.plan.ranged)
    if equalized.factors:  # equalized weights are harder to round, so the gain appears only with error feedback
        statistics = equalized.scale(graph.statistics)
        ranges = _equalized_ranges(search, equalized.model, statistics)
        attempt = _attempt(search, CalibratedGraph(equalized.model, statistics, ranges), float_nodes)
        best = search.better(best, "error feedback after equalization", _recovered(search, attempt))
    return best


def _within_budget(search: Search, best: Candidate) -> Candidate:
    """Revert the most sensitive layers to float, twice as many each time, until the accuracy budget is met."""
    if _meets_budget(search, best):
        return best
    order = sorted(sensitivities(search, best).items(), key=lambda pair: _or_infinite(pair[1].sqnr_db))
    for count in _float_counts(len(order)):
        if _meets_budget(search, best):
            break
        most_sensitive = frozenset(name for name, _ in order[:count])
        attempt = _attempt(search, best.graph, best.float_nodes | most_sensitive)
        best = search.better(best, f"{count} most sensitive layers float", _recovered(search, attempt), "not-worse")
    if not _meets_budget(search, best):
        search.request.console.say(
            f"the accuracy budget is not met: agreement is {best.agreement:.3f}; relax quantize.min_agreement or "
            "quantize.max_top1_drop_pp"
        )
    elif not best.quantized.weights:
        search.request.console.say(
            "the accuracy budget is met only with all layers in float; use the float32 file, or relax the budget"
        )
    return best


def _float_counts(layers: int) -> list[int]:
    """Return how many layers to revert to float in turn: powers of two, then all."""
    return [*(2**power for power in range((layers - 1).bit_length())), layers] if layers else []


def _or_infinite(sqnr_db: float | None) -> float:
    """Return the ratio, or infinity for None: identical logits. 0 dB, noise as large as the signal, stays 0."""
    return math.inf if sqnr_db is None else sqnr_db


def _meets_budget(search: Search, best: Candidate) -> bool:
    """Return whether the candidate meets the accuracy budget on the held-out images; without a budget, it does."""
    settings, labels = search.request.settings, search.judged.labels
    if settings.min_agreement is not None and (best.agreement or 0.0) < settings.min_agreement:
        return False
    if settings.max_top1_drop_pp is None:
        return True
    if labels is None:
        raise InputError("quantize.max_top1_drop_pp: the calibration images have no labels; set min_agreement instead")
    return best.drop_pp(labels) <= settings.max_top1_drop_pp


def sensitivities(search: Search, best: Candidate) -> dict[str, Parity]:
    """Return for each integer layer the parity of logits when only that layer is quantized, on a few judged images.

    The layer gets its analytic bias: the corrected bias also compensates errors of the layers before it, which are
    absent here.
    """
    model, ranges, statistics = best.graph.model, best.graph.ranges, best.graph.statistics
    images = search.judged.head(SENSITIVITY_IMAGES)
    operators = frozenset(node.name for node in model.graph.node)
    layers = layers_of(model)
    parities = {}
    for index, (name, weights) in enumerate(best.quantized.weights.items()):
        bias = analytic_bias(layers[name], weights, statistics[layers[name].input].mean)
        only_layer = insert_qdq(model, ranges, search.scheme, {name: replace(weights, bias=bias)}, operators - {name})
        parities[name] = compare(search.reference[: len(images)], search.answers(only_layer.model, images))
        search.request.console.progress("sensitivity of layers", index + 1, len(best.quantized.weights))
    return parities


def split(images: EvalSet) -> tuple[EvalSet, EvalSet | None]:
    """Return the images to round on, at most 128, and the held-out images, at most 256.

    Held out are a fifth of the images, or all beyond 128 where those are more.
    Both are spread evenly over all images. Of fewer than MIN_IMAGES none is held out.
    """
    if len(images) < MIN_IMAGES:
        return images, None
    count = max(int(len(images) * HELD_OUT_SHARE), len(images) - ROUNDING_IMAGES)
    held_out = _spread(len(images), min(MAX_HELD_OUT, count))
    rest = np.setdiff1d(np.arange(len(images)), held_out)
    return images.take(rest[_spread(len(rest), min(ROUNDING_IMAGES, len(rest)))]), images.take(held_out)


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, length - 1, count).round().astype(np.int64)


def _tensors_to_measure(model: onnx.ModelProto, scheme: Scheme) -> list[str]:
    """Return the tensors whose channel statistics are needed: quantized ones, and inputs and outputs of layers."""
    names = plan_quantization(model, scheme).ranged
    for layer in layers_of(model).values():
        names += [layer.input, layer.output]
    return list(dict.fromkeys([*names, model.graph.output[0].name]))


def _attempt(
    search: Search, graph: CalibratedGraph, float_nodes: frozenset[str] = frozenset(), correct: bool = True
) -> Candidate:
    """Return a candidate with nearest rounding. correct: with analytic bias correction."""
    quantized = insert_qdq(graph.model, graph.ranges, search.scheme, float_nodes=float_nodes)
    if correct:
        correct_biases(graph.model, quantized, search.scheme, graph.statistics)
    return _candidate(search, graph, quantized, float_nodes)


def _recovered(search: Search, candidate: Candidate) -> Candidate:
    """Return the candidate rounded again with error feedback."""
    copy = onnx.ModelProto()
    copy.CopyFrom(candidate.quantized.model)
    quantized = replace(candidate.quantized, model=copy, weights=dict(candidate.quantized.weights))
    graph = candidate.graph
    recover(graph.model, quantized, search.scheme, search.rounding, graph.statistics, search.request.console)
    return _candidate(search, graph, quantized, candidate.float_nodes)


def _candidate(search: Search, graph: CalibratedGraph, quantized: Quantized, float_nodes: frozenset[str]) -> Candidate:
    answers = search.answers(quantized.model, search.judged)
    return Candidate(graph, float_nodes, quantized, search.reference, answers)


def _equalized_ranges(
    search: Search, model: onnx.ModelProto, statistics: Mapping[str, Channels]
) -> Mapping[str, Range]:
    """Return the ranges of an equalized model; for min-max they follow from the scaled statistics."""
    request, tensors = search.request, plan_quantization(model, search.scheme).ranged
    if request.settings.calibration.method == "min-max":
        return {name: (float(statistics[name].low.min()), float(statistics[name].high.max())) for name in tensors}
    return calibrate(model, tensors, request.images, request.settings.calibration, request.console, request.cache)
