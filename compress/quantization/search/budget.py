"""Revert the most sensitive operators to float until the accuracy floor and the accuracy budgets are met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from compress.quantization.correction.recovery import analytic_bias
from compress.quantization.search.candidates import Candidate, Search, attempt, recovered
from export.layers import layers_of
from export.quantize import insert_qdq
from runtimes.errors import CompressError, InputError
from runtimes.lineage import RevertedOperator
from runtimes.outputs.kinds import agreement_name

SENSITIVITY_IMAGES = 8
FLOOR_SQNR_DB, FLOOR_AGREEMENT = 10.0, 0.9  # no file below is written, except with quantize.allow_poor


def within_budget(search: Search, best: Candidate) -> Candidate:
    """Revert the most sensitive operators to float, twice as many each time, until floor and budgets are met.

    Raises CompressError if the floor is met only with all operators in float.
    """
    if not _unmet(search, best):
        return best
    start, poor = best, _below_floor(search, best)
    reached = not poor  # the floor, by a file with integer operators
    sqnr_db = sensitivities(search, best)
    order = sorted(sqnr_db, key=lambda name: sqnr_db[name])
    for count in _float_counts(len(order)):
        candidate = recovered(search, attempt(search, start.graph, start.float_nodes | frozenset(order[:count])))
        step = f"{count} most sensitive operator{'s' * (count > 1)} float"
        best = search.better(best, step, candidate, "not-worse")
        reached = reached or (bool(best.quantized.plan.integer_nodes) and not _below_floor(search, best))
        if not _unmet(search, best):
            break
    if not reached:
        raise CompressError(
            f"no INT8 file of this network is accurate enough: {' and '.join(poor)}, and only float operators reach "
            "that; use the float32 file, or write the INT8 file with --allow-poor (quantize.allow_poor in a recipe)"
        )
    _say_what_is_unmet(search, best)
    search.before_reverting, search.reverted = start, _reverted(start, best, sqnr_db)
    return best


def _float_counts(operators: int) -> list[int]:
    """Return how many operators to revert to float in turn: powers of two, then all."""
    return [*(2**power for power in range((operators - 1).bit_length())), operators] if operators else []


def _reverted(start: Candidate, best: Candidate, sqnr_db: Mapping[str, float]) -> tuple[RevertedOperator, ...]:
    """Return the operators that are float in `best` only, in graph order."""
    names = best.float_nodes - start.float_nodes
    nodes = [node for node in best.graph.model.graph.node if node.name in names]
    return tuple(RevertedOperator(node.name, node.op_type, sqnr_db[node.name]) for node in nodes)


def _say_what_is_unmet(search: Search, best: Candidate) -> None:
    unmet = _unmet(search, best)
    if unmet:
        search.request.console.say(f"the accuracy budget is not met: {' and '.join(unmet)}; relax the budget")
    elif not best.quantized.plan.integer_nodes:
        search.request.console.say(
            "the accuracy budget is met only with all operators in float; use the float32 file, or relax the budget"
        )


def _unmet(search: Search, candidate: Candidate) -> list[str]:
    """Return what is below the floor or not within the budgets on the held-out images, as texts."""
    settings, labels, unmet = search.request.settings, search.judged.labels, _below_floor(search, candidate)
    if settings.min_agreement is not None and (candidate.agreement or 0.0) < settings.min_agreement:
        name = agreement_name(search.judge.kind)
        unmet.append(f"{name} is {candidate.agreement:.3f}, under min_agreement of {settings.min_agreement:g}")
    if settings.min_sqnr_db is not None and candidate.sqnr_db < settings.min_sqnr_db:
        unmet.append(f"SQNR is {candidate.sqnr_db:.1f} dB, under min_sqnr_db of {settings.min_sqnr_db:g}")
    if settings.max_top1_drop_pp is not None:
        if labels is None:
            raise InputError(
                "quantize.max_top1_drop_pp: the calibration images have no labels; set min_agreement instead"
            )
        drop_pp = candidate.drop_pp(labels)
        if drop_pp > settings.max_top1_drop_pp:
            unmet.append(f"top-1 drops by {drop_pp:.2f} pp, over max_top1_drop_pp of {settings.max_top1_drop_pp:g}")
    return unmet


def _below_floor(search: Search, candidate: Candidate) -> list[str]:
    """Return which figures are below the floor, as texts; none with quantize.allow_poor.

    After the stage `qat`, float32 without its rounding is no reference for the size of errors, only for answers.
    """
    request = search.request
    poor: list[str] = []
    if request.settings.allow_poor:
        return poor
    if request.learned is None and candidate.sqnr_db < FLOOR_SQNR_DB:
        poor.append(f"its SQNR is {candidate.sqnr_db:.1f} dB, under {FLOOR_SQNR_DB:g} dB")
    if search.held_out and candidate.agreement is not None and candidate.agreement < FLOOR_AGREEMENT:
        poor.append(f"its {agreement_name(search.judge.kind)} is {candidate.agreement:.3f}, under {FLOOR_AGREEMENT:g}")
    return poor


def sensitivities(search: Search, best: Candidate) -> dict[str, float]:
    """Return for each integer operator the SQNR in dB when only that one is quantized, on a few judged images.

    An operator's inputs and outputs are quantized with it, so that every quantized tensor counts. A layer gets its
    analytic bias: the corrected bias also compensates errors of the layers before it, which are absent here.
    """
    model, ranges, statistics = best.graph.model, best.graph.ranges, best.graph.statistics
    images = search.judged.head(SENSITIVITY_IMAGES)
    operators = [node.name for node in model.graph.node]
    layers, weights = layers_of(model), dict(best.quantized.weights)
    for name in weights:
        bias = analytic_bias(layers[name], weights[name], statistics[layers[name].input].mean)
        weights[name] = replace(weights[name], bias=bias)
    integer = [name for name in operators if name in best.quantized.plan.integer_nodes]
    sqnr_db = {}
    for index, name in enumerate(integer):
        only_this = insert_qdq(model, ranges, search.scheme, weights, frozenset(operators) - {name})
        answers = search.answers(only_this.model, images)
        sqnr_db[name] = replace(best, reference=search.reference[: len(images)], answers=answers).sqnr_db
        search.request.console.progress("sensitivity of operators", index + 1, len(integer))
    return sqnr_db
