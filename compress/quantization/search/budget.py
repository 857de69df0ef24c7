"""Revert the most sensitive operators to float until the accuracy budget is met."""

from __future__ import annotations

import math
from dataclasses import replace

from compress.quantization.correction.recovery import analytic_bias
from compress.quantization.search.candidates import Candidate, Search, attempt, recovered
from export.layers import layers_of
from export.parity import compare
from export.quantize import insert_qdq
from runtimes.errors import InputError
from runtimes.lineage import Parity

SENSITIVITY_IMAGES = 16


def within_budget(search: Search, best: Candidate) -> Candidate:
    """Revert the most sensitive layers to float, twice as many each time, until the accuracy budget is met."""
    if _meets_budget(search, best):
        return best
    order = sorted(sensitivities(search, best).items(), key=lambda pair: _or_infinite(pair[1].sqnr_db))
    for count in _float_counts(len(order)):
        if _meets_budget(search, best):
            break
        most_sensitive = frozenset(name for name, _ in order[:count])
        candidate = recovered(search, attempt(search, best.graph, best.float_nodes | most_sensitive))
        best = search.better(best, f"{count} most sensitive layers float", candidate, "not-worse")
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
