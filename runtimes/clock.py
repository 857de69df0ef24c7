"""Time latency: adaptive warm-up, interleaved blocks, and the single-stream scenario of MLPerf."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from runtimes.console import Console
from runtimes.session import Images, OnDevice, Session

STEADY = 0.03  # warm-up ends when the medians of two windows in a row differ by at most this share
WINDOW_RUNS = 10
MAX_WARMUP_FACTOR = 10  # times the requested warm-up runs; a session that is not steady by then counts as unsteady

STREAM_QUERIES, STREAM_S = 1024, 60.0  # MLPerf Inference up to v1.0; its latency metric is the 90th percentile


@dataclass(frozen=True)
class Timing:
    """Settings of timing: warm-up runs, then `blocks` blocks of `runs_per_block` runs of each artifact in turn.

    Blocks are short, so that a disturbance of the machine affects all artifacts alike.

    warmup: minimum number of warm-up runs; warm-up continues until the medians of two windows of ten runs (of `warmup`
        runs where that is fewer) differ by at most 3 %.
    blocks: number of alternating blocks.
    runs_per_block: number of timed runs of each artifact in a block.
    sessions: how often each artifact is loaded anew; each session is warmed up and times its share of the blocks.
        Effects of loading (such as memory placement) then show up as random variation between sessions.
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

    def blocks_per_session(self) -> list[int]:
        """Return the number of blocks of each session; there are no more sessions than blocks."""
        count = min(self.sessions, self.blocks)
        return [self.blocks // count + (index < self.blocks % count) for index in range(count)]


@dataclass(frozen=True)
class SessionTiming:
    """The timed runs of one session of an artifact.

    latency_ms: (blocks, runs_per_block). device_ms: every run on the device's clock, empty where it has none.
    warmup_runs: runs before the timed ones. steady: whether warm-up ended because latency was steady; None without
    warm-up.
    """

    latency_ms: npt.NDArray[np.float64]
    device_ms: list[float]
    warmup_runs: int
    steady: bool | None


@dataclass(frozen=True)
class Stream:
    """Latency of queries sent one after the other over `duration_s` of wall time, images drawn at random."""

    queries: int
    duration_s: float
    latency_ms_p50: float
    latency_ms_p90: float
    latency_ms_p99: float


def interleave(
    sessions: list[Session],
    inputs: list[list[Images]],
    timing: Timing,
    blocks_before: int,
    blocks: int,
    console: Console,
) -> list[SessionTiming]:
    """Warm up each session, then time all of them in turns for `blocks` blocks; the order rotates with every block.

    inputs: for each session, images to run in turn. blocks_before: number of blocks that earlier sessions timed.
    """
    warmups = [_warm_up(session, images, timing.warmup) for session, images in zip(sessions, inputs, strict=True)]
    latency_ms = [np.empty((blocks, timing.runs_per_block)) for _ in sessions]
    device_ms: list[list[float]] = [[] for _ in sessions]
    with _no_garbage_collection():
        for block in range(blocks):
            for turn in range(len(sessions)):
                index = (blocks_before + block + turn) % len(sessions)
                session, images = sessions[index], inputs[index]
                session.run(images[-1])  # not timed: the cache still holds the previous session's weights
                for run in range(timing.runs_per_block):
                    latency_ms[index][block, run] = _run_ms(session, images[run % len(images)])
                    if isinstance(session, OnDevice):
                        device_ms[index].append(session.device_ms())
            console.progress("time", blocks_before + block + 1, timing.blocks)
    return [SessionTiming(*fields) for fields in zip(latency_ms, device_ms, *zip(*warmups, strict=True), strict=True)]


def single_stream(session: Session, inputs: list[Images], warmup: int, console: Console) -> Stream:
    """Run at least 1,024 queries for at least 60 seconds, each sent when the previous one has returned (MLPerf)."""
    _warm_up(session, inputs, warmup)
    rng = random.Random(0)  # noqa: S311 (not a secret)
    latencies_ms: list[float] = []
    start = time.perf_counter_ns()
    elapsed_s = 0.0
    with _no_garbage_collection():
        while len(latencies_ms) < STREAM_QUERIES or elapsed_s < STREAM_S:
            latencies_ms.append(_run_ms(session, rng.choice(inputs)))
            elapsed_s = (time.perf_counter_ns() - start) / 1e9
            share = min(elapsed_s / STREAM_S, len(latencies_ms) / STREAM_QUERIES)
            console.progress("single stream", round(1000 * min(share, 1.0)), 1000)
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(latencies_ms, (50, 90, 99)))
    return Stream(len(latencies_ms), round(elapsed_s, 3), p50, p90, p99)


def _warm_up(session: Session, images: list[Images], min_runs: int) -> tuple[int, bool | None]:
    """Run until latency is steady; return the number of runs and whether it became steady (None without warm-up)."""
    if not min_runs:
        return 0, None
    previous_ms: float | None = None  # of the window before; the first window has nothing to agree with
    runs = 0
    while runs < MAX_WARMUP_FACTOR * min_runs:
        count = min(WINDOW_RUNS, min_runs)
        median_ms = float(np.median([_run_ms(session, images[(runs + run) % len(images)]) for run in range(count)]))
        runs += count
        if previous_ms is not None and runs >= min_runs and abs(median_ms - previous_ms) <= STEADY * previous_ms:
            return runs, True
        previous_ms = median_ms
    return runs, False


def _run_ms(session: Session, images: Images) -> float:
    start = time.perf_counter_ns()
    session.run(images)
    return (time.perf_counter_ns() - start) / 1e6


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, whose pauses would count as the engine's latency."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
