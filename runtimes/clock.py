"""How time is taken: warm-up until the machine is steady, interleaved blocks, and MLPerf's single stream."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from runtimes.session import Images, OnDevice, Session

Progress = Callable[[str, int, int], None]  # what is done, how much of it, out of how much

STEADY = 0.03  # two windows of warm-up whose medians differ by less are of a machine that is warm
WINDOW_RUNS = 10
MOST_WARMUP = 10  # times the warm-up asked for, after which it counts as unsteady

STREAM_QUERIES, STREAM_S = 1024, 60.0  # MLPerf Inference until v1.0; its latency is the 90th percentile


@dataclass(frozen=True)
class Timing:
    """How latency is taken: warm-up runs, then `blocks` blocks of `runs_per_block` runs of each artifact in turn.

    Blocks are short, so that what the machine does to one artifact it does to its neighbours, too.
    warmup: at least so many runs, and on until two windows of ten take the same time, within 3 %.
    sessions: the artifacts are loaded anew so many times, and each time warmed up and timed for its share of the
    blocks. What loading does to the speed (where in memory things lie) is seen as chance then, and not as a property.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # recipes hold one

    warmup: int = 20
    blocks: int = 150
    runs_per_block: int = 3
    sessions: int = 15

    def __post_init__(self) -> None:
        if not (0 <= self.warmup <= 10_000 and 2 <= self.blocks <= 10_000 and 1 <= self.runs_per_block <= 10_000):
            raise ValueError("must have 0 to 10000 warm-up runs, 2 to 10000 blocks and 1 to 10000 runs per block")
        if not 1 <= self.sessions <= 1000:
            raise ValueError("must have 1 to 1000 sessions")

    def shares(self) -> list[int]:
        """Return how many blocks each session has; there are no more sessions than blocks."""
        count = min(self.sessions, self.blocks)
        return [self.blocks // count + (index < self.blocks % count) for index in range(count)]


@dataclass(frozen=True)
class Taken:
    """What one session of an artifact took.

    latency_ms: (blocks, runs_per_block). device_ms: of all runs on the device's clock, empty where it has none.
    warmup_runs: before them. steady: whether those ended because the machine was warm; None without warm-up.
    """

    latency_ms: npt.NDArray[np.float64]
    device_ms: list[float]
    warmup_runs: int
    steady: bool | None


@dataclass(frozen=True)
class Stream:
    """Latencies of one query after the other; `duration_s` of wall time, images drawn at random."""

    queries: int
    duration_s: float
    latency_ms_p50: float
    latency_ms_p90: float
    latency_ms_p99: float


def interleave(
    sessions: list[Session], inputs: list[list[Images]], timing: Timing, done: int, blocks: int, progress: Progress
) -> list[Taken]:
    """Warm each session up, then time all of them in turns for so many blocks; who goes first changes every block.

    inputs: of each session, taken in turn. done: blocks of earlier sessions.
    """
    warm = [_warm_up(session, images, timing.warmup) for session, images in zip(sessions, inputs, strict=True)]
    taken = [np.empty((blocks, timing.runs_per_block)) for _ in sessions]
    on_device: list[list[float]] = [[] for _ in sessions]
    with _without_collections():
        for block in range(blocks):
            for turn in range(len(sessions)):
                index = (done + block + turn) % len(sessions)
                session, images = sessions[index], inputs[index]
                session.run(images[-1])  # the neighbour's weights are in the cache: not timed
                for run in range(timing.runs_per_block):
                    taken[index][block, run] = _run_ms(session, images[run % len(images)])
                    if isinstance(session, OnDevice):
                        on_device[index].append(session.device_ms())
            progress("time", done + block + 1, timing.blocks)
    return [Taken(*one) for one in zip(taken, on_device, *zip(*warm, strict=True), strict=True)]


def single_stream(session: Session, inputs: list[Images], warmup: int, progress: Progress) -> Stream:
    """Run at least 1,024 queries for at least 60 seconds, each sent when the one before is answered (MLPerf)."""
    _warm_up(session, inputs, warmup)
    drawn = random.Random(0)  # noqa: S311 (no secret)
    latencies_ms: list[float] = []
    start = time.perf_counter_ns()
    passed_s = 0.0
    with _without_collections():
        while len(latencies_ms) < STREAM_QUERIES or passed_s < STREAM_S:
            latencies_ms.append(_run_ms(session, drawn.choice(inputs)))
            passed_s = (time.perf_counter_ns() - start) / 1e9
            share = min(passed_s / STREAM_S, len(latencies_ms) / STREAM_QUERIES)
            progress("single stream", round(1000 * min(share, 1.0)), 1000)
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(latencies_ms, (50, 90, 99)))
    return Stream(len(latencies_ms), round(passed_s, 3), p50, p90, p99)


def _warm_up(session: Session, images: list[Images], at_least: int) -> tuple[int, bool | None]:
    """Run until the time of a run no longer changes; return how many runs that took, and whether it came to that."""
    if not at_least:
        return 0, None
    before, runs = float("inf"), 0
    while runs < MOST_WARMUP * at_least:
        count = min(WINDOW_RUNS, at_least)
        median = float(np.median([_run_ms(session, images[(runs + run) % len(images)]) for run in range(count)]))
        runs += count
        if runs >= at_least and abs(median - before) <= STEADY * before:
            return runs, True
        before = median
    return runs, False


def _run_ms(session: Session, images: Images) -> float:
    start = time.perf_counter_ns()
    session.run(images)
    return (time.perf_counter_ns() - start) / 1e6


@contextmanager
def _without_collections() -> Iterator[None]:
    """Collect no garbage inside: in a timed run that would be counted as the engine's time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
