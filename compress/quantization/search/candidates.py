"""Candidates of the search: how they are made, judged and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx

from compress.quantization.correction.channels import Channels
from compress.quantization.correction.recovery import correct_biases, recover
from compress.quantization.request import QuantizationRequest, Range
from compress.quantization.search.judge import Judge, Rows
from export.quantize import Quantized, insert_qdq
from export.scheme import Scheme
from runtimes.evalset import EvalSet
from runtimes.lineage import Attempt, RevertedOperator
from runtimes.outputs.kinds import agreement_name

NEGLIGIBLE_NOISE_DB = 30.0  # SQNR above which noise is below 3 % of the logits' length
RUINED = 1e9  # in the place of NaN and infinity

# Condition for keeping a candidate instead of the best so far.
#   better     less noise
#   not-worse  not more noise, by more than MAX_ERRORS standard errors: float operators, which add none of their own
#   far-better less than MAX_SHARE of a noise that is not negligible: for candidates that are a little slower
#   faster     as not-worse, or with negligible noise and no lower agreement: for candidates that reduce latency
MAX_ERRORS = 2.0
MAX_SHARE = 0.7  # 3 dB
Criterion = Literal["better", "not-worse", "far-better", "faster"]


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
    """A quantized model, the float32 graph it is made from, and both models' outputs (N, D) for the judged images.

    float_nodes: names of the nodes that stay float. reference: outputs of the float32 graph. answers: of the quantized.
    """

    graph: CalibratedGraph
    float_nodes: frozenset[str]
    quantized: Quantized
    judge: Judge
    reference: Rows
    answers: Rows

    @property
    def noise(self) -> npt.NDArray[np.float64]:
        """Return each image's distance (N,) from the float32 outputs."""
        return self.judge.noise(self.reference, self.answers)

    @property
    def sqnr_db(self) -> float:
        """Return the SQNR of the worst output; see `Judge.sqnr_db`."""
        return self.judge.sqnr_db(self.reference, self.answers)

    @property
    def agreement(self) -> float | None:
        """Return the agreement with float32, None where there is none; see `Judge.agreement`."""
        return self.judge.agreement(self.reference, self.answers)

    def agrees_as_often_as(self, other: Candidate) -> bool:
        """Return whether the agreement with float32 is not lower."""
        return self.agreement is None or other.agreement is None or self.agreement >= other.agreement

    def drop_pp(self, labels: npt.NDArray[np.int64]) -> float:
        """Return how many percentage points top-1 is below that of float32."""
        accuracies = [float(np.mean(logits.argmax(1) == labels)) for logits in (self.reference, self.answers)]
        return 100 * (accuracies[0] - accuracies[1])


@dataclass
class Search:
    """Request, images and reference that all attempts share, and the attempts so far.

    rounding: images to round weights on. held_out: images to judge on; None if there are too few to hold some out, so
    that attempts are judged on the rounding images. reference: float32 outputs of the judged images. before_reverting,
    reverted: the candidate and its operators that were reverted to float for the sake of accuracy, in graph order.
    in_order: whether error feedback comes with bias correction in order; False once that has harmed this network.
    """

    request: QuantizationRequest
    rounding: EvalSet
    held_out: EvalSet | None
    reference: Rows
    judge: Judge
    attempts: list[Attempt] = field(default_factory=list)
    before_reverting: Candidate | None = None
    reverted: tuple[RevertedOperator, ...] = ()
    in_order: bool = True

    @property
    def judged(self) -> EvalSet:
        """Return the images on which attempts are judged."""
        return self.held_out or self.rounding

    def answers(self, model: onnx.ModelProto, images: EvalSet) -> Rows:
        """Return the outputs (N, D) of a graph; NaN and infinity become RUINED, a large number, to count as noise."""
        return np.nan_to_num(self.judge.rows(model, images), nan=RUINED, posinf=RUINED, neginf=-RUINED)

    @property
    def scheme(self) -> Scheme:
        """Return the scheme of the request."""
        return self.request.scheme

    def better(self, best: Candidate, step: str, candidate: Candidate, criterion: Criterion = "better") -> Candidate:
        """Record an attempt and return the better candidate of the two."""
        kept = candidate is best or _is_kept(best, candidate, criterion)
        agreement = candidate.agreement if self.held_out else None  # on images of the fit it would always be high
        self.attempts.append(Attempt(step, candidate.sqnr_db, agreement, kept))
        judged = "" if self.held_out else ", on the images of the fit"
        same = "" if agreement is None else f", {agreement_name(self.judge.kind)} {agreement:.3f}"
        self.request.console.say(
            f"{step}: SQNR {candidate.sqnr_db:.1f} dB{judged}{same}, {'kept' if kept else 'not kept'}"
        )
        return candidate if kept else best


def _is_kept(best: Candidate, candidate: Candidate, criterion: Criterion) -> bool:
    gain = best.noise - candidate.noise
    mean = float(gain.mean())
    error = float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
    if criterion == "better":
        return mean > 0
    if criterion == "far-better":
        removes_much = float(candidate.noise.mean()) < MAX_SHARE * float(best.noise.mean())
        return removes_much and best.sqnr_db < NEGLIGIBLE_NOISE_DB
    negligible = candidate.sqnr_db >= NEGLIGIBLE_NOISE_DB and candidate.agrees_as_often_as(best)
    return mean >= -MAX_ERRORS * error or (criterion == "faster" and negligible)


def attempt(
    search: Search, graph: CalibratedGraph, float_nodes: frozenset[str] = frozenset(), correct: bool = True
) -> Candidate:
    """Return a candidate with nearest rounding. correct: with analytic bias correction."""
    quantized = insert_qdq(graph.model, graph.ranges, search.scheme, float_nodes=float_nodes)
    if correct:
        correct_biases(graph.model, quantized, graph.statistics)
    return _candidate(search, graph, quantized, float_nodes)


def recovered(search: Search, candidate: Candidate) -> Candidate:
    """Return the candidate rounded again with error feedback."""
    copy = onnx.ModelProto()
    copy.CopyFrom(candidate.quantized.model)
    quantized = replace(candidate.quantized, model=copy, weights=dict(candidate.quantized.weights))
    graph = candidate.graph
    recover(graph.model, quantized, search.rounding, graph.statistics, search.request.console, search.in_order)
    return _candidate(search, graph, quantized, candidate.float_nodes)


def _candidate(search: Search, graph: CalibratedGraph, quantized: Quantized, float_nodes: frozenset[str]) -> Candidate:
    answers = search.answers(quantized.model, search.judged)
    return Candidate(graph, float_nodes, quantized, search.judge, search.reference, answers)
