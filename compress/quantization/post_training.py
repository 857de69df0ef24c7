"""Post-training quantization: one attempt after the other, judged on images that it has not seen, the best kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx

from compress.quantization.calibration import Range, calibrate
from compress.quantization.config import Quantize
from compress.quantization.correction.channels import Channels, channel_statistics
from compress.quantization.correction.equalization import equalize
from compress.quantization.correction.recovery import analytic_bias, correct_biases, recover
from compress.quantization.float_layers import CompareSpeed, entrances
from compress.quantization.ort_graph import logits
from export.layers import layers_of
from export.parity import compare
from export.plan import make_plan
from export.quantize import Quantized, insert_qdq
from export.scheme import Scheme
from runtimes.clock import Progress
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.lineage import Attempt, Parity

HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 256
RECOVERY_IMAGES = 128  # more add minutes and hundredths of a decibel
SENSITIVITY_IMAGES = 16
INAUDIBLE_DB = 30.0  # the noise is 3 % of the logits' length
IDENTICAL = 1e-6  # share of the signal below which noise is that of float32 itself

Gains = Literal["accuracy", "free", "time"]  # what a step is tried for


@dataclass(frozen=True)
class Candidate:
    """A quantized model with the float32 graph that it was made of, that graph's statistics and its tensors' ranges.

    statistics: least and greatest values over all images, means over those to round by.
    reference, answers: float32's logits of the held-out images, and its own.
    """

    model: onnx.ModelProto
    statistics: Mapping[str, Channels]
    ranges: Mapping[str, Range]
    float_nodes: frozenset[str]
    quantized: Quantized
    reference: npt.NDArray[np.float32]
    answers: npt.NDArray[np.float32]

    @property
    def noise(self) -> npt.NDArray[np.float64]:
        """Return each image's distance (N,) from float32's logits."""
        distances: npt.NDArray[np.float64] = np.linalg.norm(self.reference.astype(np.float64) - self.answers, axis=1)
        return distances

    @property
    def sqnr_db(self) -> float:
        """Return the ratio of the logits' mean length to their mean distance from float32's, in dB.

        With squares the few loudest images would decide, with a mean of decibels the few that are hit by chance.
        """
        signal = max(float(np.linalg.norm(self.reference.astype(np.float64), axis=1).mean()), 1e-30)
        return 20 * math.log10(signal / max(float(self.noise.mean()), signal * IDENTICAL))

    @property
    def agreement(self) -> float:
        """Return the share of images with float32's answer."""
        return float(np.mean(self.reference.argmax(1) == self.answers.argmax(1)))

    def drop_pp(self, labels: npt.NDArray[np.int64]) -> float:
        """Return by how many percentage points top-1 is below float32's."""
        right = [float(np.mean(logits.argmax(1) == labels)) for logits in (self.reference, self.answers)]
        return 100 * (right[0] - right[1])


@dataclass
class Search:
    """What all attempts share. fit: images to round by; held_out: to judge on; reference: float32's logits there."""

    scheme: Scheme
    settings: Quantize
    images: EvalSet
    fit: EvalSet
    held_out: EvalSet
    reference: npt.NDArray[np.float32]
    progress: Progress
    say: Callable[[str], None]
    cache: Path | None
    attempts: list[Attempt] = field(default_factory=list)

    def better(self, best: Candidate, step: str, candidate: Candidate, gains: Gains = "accuracy") -> Candidate:
        """Record an attempt and return the better of the two.

        More than the standard error of what it wins decides (as in Breiman et al., CART, 1984, section 3.4.3): an
        attempt is kept where it is better by more than that, one that is free unless it is worse by more than that. One
        that gains time is kept, too, where no answer changes and the noise is too small to be heard.
        """
        won = best.noise - candidate.noise
        mean, error = float(won.mean()), float(won.std(ddof=1)) / math.sqrt(len(won)) if len(won) > 1 else 0.0
        kept = candidate is best or (mean > error if gains == "accuracy" else mean >= -error)
        if gains == "time" and candidate.sqnr_db >= INAUDIBLE_DB and candidate.agreement >= best.agreement:
            kept = True
        self.attempts.append(Attempt(step, candidate.sqnr_db, candidate.agreement, kept))
        self.say(f"{step}: SQNR {candidate.sqnr_db:.1f} dB, agreement {candidate.agreement:.3f}, "
                 f"{'kept' if kept else 'not kept'}")  # fmt: skip
        return candidate if kept else best


def quantize(
    model: onnx.ModelProto,
    images: EvalSet,
    scheme: Scheme,
    settings: Quantize,
    compare_speed: CompareSpeed,
    progress: Progress,
    say: Callable[[str], None],
    cache: Path | None = None,
    learned: Mapping[str, Range] | None = None,
) -> tuple[Candidate, Search]:
    """Quantize a float32 graph in standard form; returns the best candidate and how it was found.

    compare_speed: tells whether layers may stay float, by latency. say: is told of each attempt. learned: ranges of a
    network that was trained with them and with nearest rounding; then only layers that stay float are looked for.
    Raises InputError as `make_plan` and `calibrate` do.
    """
    fit, held_out = split(images)
    search = Search(scheme, settings, images, fit, held_out, logits(model, held_out), progress, say, cache)
    # Ranges are of all images, as no image may be clipped that could be seen; what is chosen is judged on the held-out.
    if learned is None:
        ranges = calibrate(model, make_plan(model, scheme).ranged, images, settings.calibration, progress, cache)
    else:
        ranges = dict(learned)
    statistics = channel_statistics(model, _watched(model, scheme), images, progress)
    means = channel_statistics(model, list(statistics), search.fit, progress)
    statistics = {name: replace(known, mean=means[name].mean) for name, known in statistics.items()}

    best = _attempt(search, model, statistics, ranges, correct=False)
    search.better(best, "nearest rounding" if learned is None else "as trained", best)
    if learned is None:
        best = search.better(best, "analytic bias correction", _attempt(search, model, statistics, ranges))
    for float_nodes in entrances(model):
        candidate = _attempt(search, model, statistics, ranges, float_nodes, correct=learned is None)
        speed = compare_speed(best.quantized, candidate.quantized)
        if speed != "slower":
            step = f"first {len(float_nodes)} layers float"
            best = search.better(best, step, candidate, "time" if speed == "faster" else "free")
    if learned is not None:
        return _within_budget(search, best), search
    float_nodes = best.float_nodes
    best = search.better(best, "error feedback, bias correction in order", _recovered(search, best))
    equalized = equalize(model, statistics, best.quantized.plan.ranged)
    if equalized.factors:  # weights become harder to round, so this shows its worth only with error feedback
        scaled = equalized.scale(statistics)
        given = _ranges_of_equalized(search, equalized.model, scaled)
        attempt = _attempt(search, equalized.model, scaled, given, float_nodes)
        best = search.better(best, "the same after equalization", _recovered(search, attempt))
    return _within_budget(search, best), search


def _within_budget(search: Search, best: Candidate) -> Candidate:
    """Give the layers that cost most back to float, twice as many each time, until the accuracy budget holds."""
    if _holds(search, best):
        return best
    order = sorted(sensitivities(search, best).items(), key=lambda pair: _or_infinite(pair[1].sqnr_db))
    count = 1
    while not _holds(search, best) and count < len(order):
        worst = frozenset(name for name, _ in order[:count])
        attempt = _attempt(search, best.model, best.statistics, best.ranges, best.float_nodes | worst)
        best = search.better(best, f"{count} most sensitive layers float", _recovered(search, attempt), "free")
        count *= 2
    if not _holds(search, best):
        search.say(f"the accuracy budget does not hold: agreement {best.agreement:.3f}; give the recipe a looser one")
    return best


def _or_infinite(sqnr_db: float | None) -> float:
    """Return the ratio, infinite where answers are identical; 0 dB, a network that says nothing, is no such case."""
    return math.inf if sqnr_db is None else sqnr_db


def _holds(search: Search, best: Candidate) -> bool:
    """Tell whether the budget holds on the held-out images; without a budget, it does."""
    settings, labels = search.settings, search.held_out.labels
    if settings.min_agreement is not None and best.agreement < settings.min_agreement:
        return False
    if settings.max_top1_drop_pp is None:
        return True
    if labels is None:
        raise InputError("quantize.max_top1_drop_pp: the calibration images have no labels; give min_agreement")
    return best.drop_pp(labels) <= settings.max_top1_drop_pp


def sensitivities(search: Search, best: Candidate) -> dict[str, Parity]:
    """Return for each integer layer what the logits lose when it alone is quantized, on a few held-out images."""
    images = search.held_out.head(SENSITIVITY_IMAGES)
    operators = frozenset(node.name for node in best.model.graph.node)
    found = {}
    layers = layers_of(best.model)
    for index, (name, weights) in enumerate(best.quantized.weights.items()):
        # Biases that make good what layers before have lost would blame this one for it.
        bias = analytic_bias(layers[name], weights, best.statistics[layers[name].input].mean)
        own = {name: replace(weights, bias=bias)}
        alone = insert_qdq(best.model, best.ranges, search.scheme, own, operators - {name})
        found[name] = compare(search.reference[: len(images)], logits(alone.model, images))
        search.progress("sensitivity of layers", index + 1, len(best.quantized.weights))
    return found


def split(images: EvalSet) -> tuple[EvalSet, EvalSet]:
    """Return the images to round by, at most 128, and those to judge on: a fifth or the rest, at most 256.

    Both are spread over all. With fewer than 10 images, all are used for both.
    """
    if len(images) < 10:
        return images, images
    count = max(int(len(images) * HELD_OUT_SHARE), len(images) - RECOVERY_IMAGES)
    held_out = _spread(len(images), min(MOST_HELD_OUT, count))
    rest = np.setdiff1d(np.arange(len(images)), held_out)
    return images.take(rest[_spread(len(rest), min(RECOVERY_IMAGES, len(rest)))]), images.take(held_out)


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, length - 1, count).round().astype(np.int64)


def _watched(model: onnx.ModelProto, scheme: Scheme) -> list[str]:
    """Return the tensors whose channels have to be known: the quantized ones, and what layers read and write."""
    names = make_plan(model, scheme).ranged
    for layer in layers_of(model).values():
        names += [layer.input, layer.output]
    return list(dict.fromkeys([*names, model.graph.output[0].name]))


def _attempt(
    search: Search,
    model: onnx.ModelProto,
    statistics: Mapping[str, Channels],
    ranges: Mapping[str, Range],
    float_nodes: frozenset[str] = frozenset(),
    correct: bool = True,
) -> Candidate:
    """Quantize with nearest rounding."""
    quantized = insert_qdq(model, ranges, search.scheme, float_nodes=float_nodes)
    if correct:
        correct_biases(model, quantized, search.scheme, statistics)
    return _judged(search, model, statistics, ranges, quantized, float_nodes)


def _recovered(search: Search, best: Candidate) -> Candidate:
    copy = onnx.ModelProto()
    copy.CopyFrom(best.quantized.model)
    quantized = replace(best.quantized, model=copy, weights=dict(best.quantized.weights))
    recover(best.model, quantized, search.scheme, search.fit, best.statistics, search.progress)
    return _judged(search, best.model, best.statistics, best.ranges, quantized, best.float_nodes)


def _judged(
    search: Search,
    model: onnx.ModelProto,
    statistics: Mapping[str, Channels],
    ranges: Mapping[str, Range],
    quantized: Quantized,
    float_nodes: frozenset[str],
) -> Candidate:
    answers = logits(quantized.model, search.held_out)
    return Candidate(model, statistics, ranges, float_nodes, quantized, search.reference, answers)


def _ranges_of_equalized(
    search: Search, model: onnx.ModelProto, statistics: Mapping[str, Channels]
) -> Mapping[str, Range]:
    """Return the ranges of a model that was equalized; its least and greatest values are known already."""
    tensors = make_plan(model, search.scheme).ranged
    if search.settings.calibration.method != "min-max":
        return calibrate(model, tensors, search.images, search.settings.calibration, search.progress, search.cache)
    return {name: (float(statistics[name].low.min()), float(statistics[name].high.max())) for name in tensors}
