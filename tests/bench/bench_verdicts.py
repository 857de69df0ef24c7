"""Measure the error rates of verdicts: false alarms, power, coverage of the confidence bounds, real A/A comparisons.

    false alarm   share of comparisons without a true drop that the check calls a regression (classes included)
    power         share of true drops of twice the limit that it calls a regression, and the share expected by theory
                  for that number of images
    coverage      share of simulations in which each one-sided 95 % bound holds
    real A/A      two files measured twice on this machine: how often the two-sided 95 % interval of the change in
                  latency covers 1, and how often it is above 1 if the artifact is made 5 % slower by waiting

Simulated predictions: images are right or wrong in both, lost or gained at random. Simulated latencies: the machine's
speed drifts from block to block and from session to session, noise is skewed, and 1 % of the runs take three times as
long. The last line is JSON.

    make bench-verdicts [SIMULATIONS=2000]
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from compress.models import mobilenet_v2
from compress.verdict import comparison, metrics, statistics
from compress.verdict.accepted import Accepted, Result
from compress.verdict.comparison import Limits
from export.to_onnx import to_onnx
from runtimes import measure
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.console import SilentConsole
from runtimes.outputs.kinds import Arrays
from runtimes.preprocessing import Preprocessing
from runtimes.session import Images, Session
from runtimes.target import Target

SIMULATIONS = int(os.environ.get("SIMULATIONS") or 2000)
CLASSES, IMAGES, MANY = 10, 4_000, 20_000
TOP1, LOST = 0.8, 0.03  # of the old network; share of images that a quantized network usually predicts differently
REAL_PAIRS, SLOWDOWN = 20, 1.05
TIMING = Timing()
BLOCKS, RUNS, SESSIONS = TIMING.blocks, TIMING.runs_per_block, TIMING.sessions
LIMITS = Limits()


def main() -> None:
    """Print all figures, then JSON."""
    rng = np.random.default_rng(0)
    alarms = np.mean([verdict_of(rng, IMAGES, 0.0) == "regression" for _ in range(SIMULATIONS)])
    print(f"false alarms  {alarms:.4f} of {SIMULATIONS} A/A comparisons; expected: at most {1 - LIMITS.confidence:.2f}")
    drop = 2 * LIMITS.max_drop_pp / 100
    power = np.mean([verdict_of(rng, MANY, drop) == "regression" for _ in range(SIMULATIONS)])
    stated = expected_power(MANY, drop)
    print(f"power         {power:.3f} for a drop of {100 * drop:g} points on {MANY} images; expected: {stated:.3f}")
    coverage = {
        **drop_coverage(rng), **metric_coverage(rng), **agreement_coverage(rng), **latency_coverage(rng)
    }  # fmt: skip
    for name, rate in coverage.items():
        print(f"coverage      {rate:.3f} {name}")
    covered, detected = real_pairs()
    print(f"real A/A      {covered} of {REAL_PAIRS} intervals cover 1; "
          f"a slowdown of 5 % is detected in {detected} of {REAL_PAIRS}")  # fmt: skip
    print(json.dumps({
        "false_alarm_rate": float(alarms), "power": float(power), "stated_power": stated, "coverage": coverage,
        "aa_latency_covered": covered, "slowdown_found": detected,
    }))  # fmt: skip


def draw(
    rng: np.random.Generator, images: int, drop: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return old and new predictions and labels with a true drop of top-1."""
    labels = rng.integers(0, CLASSES, images)
    kind = rng.choice(4, size=images, p=[TOP1 - LOST, LOST, LOST - drop, 1 - TOP1 - LOST + drop])
    wrong = (labels + 1) % CLASSES
    old, new = np.where(kind < 2, labels, wrong), np.where((kind == 0) | (kind == 2), labels, wrong)
    return old, new, labels


def verdict_of(rng: np.random.Generator, images: int, drop: float) -> str:
    """Return the verdict on simulated predictions; latency is not compared because the environments differ."""
    old, new, labels = draw(rng, images, drop)
    sides = [
        Accepted("simulated", tuple(map(str, range(CLASSES))), tuple(labels.tolist()), (_result(predicted, cpu),), "0")
        for predicted, cpu in ((old, "a"), (new, "b"))
    ]
    return comparison.verdict(comparison.compare(*sides, LIMITS))


def _result(predicted: npt.NDArray[np.int64], cpu: str) -> Result:
    return Result(Target("here"), "file", "", 0, "same", tuple(predicted.tolist()), (), (), 0, 1, {"cpu": cpu})


def expected_power(images: int, drop: float) -> float:
    """Return the probability that the lower bound is above the limit, by the normal approximation."""
    limit = LIMITS.max_drop_pp / 100
    error = math.sqrt((2 * LOST - drop - drop**2) / images)
    normal = NormalDist()
    return normal.cdf((drop - limit) / error - normal.inv_cdf(LIMITS.confidence))


def drop_coverage(rng: np.random.Generator) -> dict[str, float]:
    """Return how often the bounds of the top-1 drop hold, for two numbers of images and two true drops."""
    rates = {}
    for images in (654, IMAGES):
        for drop in (0.0, 0.01):
            bounds = []
            for _ in range(SIMULATIONS):
                estimate = statistics.top1_drop_pp(*draw(rng, images, drop), LIMITS.confidence)
                bounds.append((estimate.low <= 100 * drop, 100 * drop <= estimate.high))
            low, high = np.mean(bounds, axis=0)
            rates[f"drop of {100 * drop:g} pp, {images} images, above low"] = float(low)
            rates[f"drop of {100 * drop:g} pp, {images} images, below high"] = float(high)
    return rates


def metric_coverage(rng: np.random.Generator) -> dict[str, float]:
    """Return how often the bounds of the metrics of imbalanced data hold; the rare class loses 10 of 100 images."""
    rates, lost = {}, np.asarray([0.02, 0.1])
    for images in ([60, 8], [500, 50]):
        labels = np.repeat([0, 1], images)
        for metric in ("balanced_accuracy", "macro_f1"):
            many = np.repeat(labels, MANY)
            truth = metrics.drop_pp(metric, many, _with_losses(rng, many, lost), many, LIMITS.confidence).value
            drops = [metrics.drop_pp(metric, labels, _with_losses(rng, labels, lost), labels, LIMITS.confidence)
                     for _ in range(SIMULATIONS)]  # fmt: skip
            name = f"{metric}, {images[0]} and {images[1]} images"
            rates[f"{name}, above low"] = float(np.mean([drop.low <= truth for drop in drops]))
            rates[f"{name}, below high"] = float(np.mean([drop.high >= truth for drop in drops]))
    return rates


def _with_losses(
    rng: np.random.Generator, labels: npt.NDArray[np.int64], lost: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    return np.where(rng.random(len(labels)) < lost[labels], 1 - labels, labels)


def agreement_coverage(rng: np.random.Generator) -> dict[str, float]:
    """Return how often the bounds of agreement hold, for true shares from 0.9 to 0.995."""
    bounds = []
    for share in rng.uniform(0.9, 0.995, SIMULATIONS):
        changed = (rng.random(IMAGES) > share).astype(np.int64)
        estimate = statistics.agreement(np.zeros(IMAGES, np.int64), changed, LIMITS.confidence)
        bounds.append((estimate.low <= share, share <= estimate.high))
    low, high = np.mean(bounds, axis=0)
    return {
        f"agreement, {IMAGES} images, above low": float(low),
        f"agreement, {IMAGES} images, below high": float(high),
    }


def session(rng: np.random.Generator, ratio: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return simulated latencies (blocks, runs) of a reference and of an artifact that takes `ratio` times as long."""
    speed = rng.lognormal(0, 0.2)
    per_session = rng.normal(0, 0.01, (2, SESSIONS, 1)).repeat(BLOCKS // SESSIONS, axis=1)
    drift = np.exp(np.cumsum(rng.normal(0, 0.01, BLOCKS)) + rng.normal(0, 0.02, BLOCKS))[:, None]
    return tuple(
        speed * scale * drift * np.exp(offset + rng.normal(0, 0.02, (BLOCKS, 1)))
        * rng.lognormal(0, 0.05, (BLOCKS, RUNS)) * np.where(rng.random((BLOCKS, RUNS)) < 0.01, 3, 1)
        for scale, offset in zip((1.0, ratio), per_session, strict=True)
    )  # type: ignore[return-value]  # fmt: skip


def latency_coverage(rng: np.random.Generator) -> dict[str, float]:
    """Return how often the bounds of the speed-up and of the slowdown hold."""
    bounds: dict[str, list[tuple[bool, bool]]] = {"speed-up": [], "slowdown": []}
    for _ in range(SIMULATIONS):
        drift = np.exp(rng.normal(0, statistics.OCCASION_SD, 2))  # between the two measurements
        before, after = session(rng, 0.5 * drift[0]), session(rng, 0.5 * 1.2 * drift[1])
        faster, truth = statistics.speedup(*before, LIMITS.confidence, SESSIONS), 2 / drift[0]
        bounds["speed-up"].append((faster.low <= truth, faster.high >= truth))
        slower = statistics.slowdown(before, after, LIMITS.confidence, (SESSIONS, SESSIONS))
        bounds["slowdown"].append((slower.low <= 1.2, slower.high >= 1.2))
    rates = {name: np.mean(pairs, axis=0) for name, pairs in bounds.items()}
    return {f"{name}, {side}": float(rates[name][index])
            for name in rates for index, side in enumerate(("above low", "below high"))}  # fmt: skip


class Slowed:
    """A session with a wait after each run."""

    def __init__(self, inner: Session) -> None:
        self._inner = inner

    def run(self, images: Images) -> Arrays:
        """Run the inner session, then wait until `SLOWDOWN` times its duration has passed."""
        start = time.perf_counter()
        outputs = self._inner.run(images)
        until = start + SLOWDOWN * (time.perf_counter() - start)
        while time.perf_counter() < until:
            pass
        return outputs

    def close(self) -> None:
        """Close the session."""
        self._inner.close()


def real_pairs() -> tuple[int, int]:
    """Return how many intervals of repeated measurements cover 1, and how many detect the slower artifact."""
    covered = detected = 0
    drifts: list[float] = []
    sessions = (TIMING.sessions, TIMING.sessions)
    confidence = 0.975  # each side, so that the interval holds with 95 %
    with tempfile.TemporaryDirectory() as name:
        artifacts = [_artifact(Path(name) / f"{width}.onnx", width) for width in (1.0, 0.5)]
        for _ in range(REAL_PAIRS):
            first, second, slowed = (_latencies(artifacts, slow) for slow in (False, False, True))
            same = statistics.slowdown(first, second, confidence, sessions)
            slower = statistics.slowdown(first, slowed, LIMITS.confidence, sessions)
            covered += same.low <= 1 <= same.high
            detected += slower.low > 1
            drifts.append(math.log(same.value) / math.sqrt(2))
            texts = (f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})" for estimate in (same, slower))
            print("              repeated {}, slowed {}".format(*texts), flush=True)
    spread = math.sqrt(float(np.mean(np.square(drifts))))
    print(f"occasions     the ratio of two networks differs by {spread:.4f} (SD of its logarithm) between measurements")
    return covered, detected


def _artifact(path: Path, width: float) -> Artifact:
    torch.manual_seed(0)
    network = mobilenet_v2.build(mobilenet_v2.Config(width=width), CLASSES).eval()
    file = to_onnx(network, path, 96, opset=18, batch=None)
    return file.artifact(Preprocessing(96, 96), tuple(map(str, range(CLASSES))))


def _latencies(artifacts: list[Artifact], slow: bool) -> tuple[Any, Any]:
    with _loading(lambda inner, artifact: Slowed(inner) if slow and artifact is artifacts[1] else inner):
        one, other = measure.measure(artifacts, Target("here"), None, TIMING, SilentConsole())
    return one.latency_ms, other.latency_ms


@contextmanager
def _loading(wrap: Callable[[Session, Artifact], Any]) -> Any:
    """Wrap each session that `measure` loads."""
    load = measure.load
    measure.load = lambda artifact, target: wrap(load(artifact, target), artifact)
    try:
        yield
    finally:
        measure.load = load


if __name__ == "__main__":
    main()
