"""Tests of runtimes.clock: warm-up, single stream and limits; test_measure.py covers blocks and turns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtimes import clock
from runtimes.clock import Timing, interleave, single_stream
from runtimes.console import SilentConsole

IMAGES = [np.full((1, 3, 2, 2), value, np.float32) for value in range(4)]


class Timed:
    """A session whose runs take chosen milliseconds, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, duration_ms: Any) -> None:
        self.now_ns, self.runs, self.seen = 0, 0, []
        self._duration_ms = duration_ms
        monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter_ns=lambda: self.now_ns))

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        self.now_ns += round(1e6 * self._duration_ms(self.runs))
        self.runs += 1
        self.seen.append(float(images.flat[0]))
        return (np.zeros((1, 2), np.float32),)

    def close(self) -> None:
        """Hold nothing."""


@pytest.mark.parametrize(
    ("blocks", "sessions", "shares"), [(30, 5, [6] * 5), (7, 3, [3, 2, 2]), (2, 5, [1, 1]), (9, 1, [9])]
)
def test_blocks_are_shared_by_sessions(blocks: int, sessions: int, shares: list[int]) -> None:
    assert Timing(1, blocks, 1, sessions).blocks_per_session() == shares


@pytest.mark.parametrize(
    "fields",
    [(-1, 2, 1), (10_001, 2, 1), (0, 1, 1), (0, 10_001, 1), (0, 2, 0), (0, 2, 10_001)],
)
def test_timing_out_of_bounds_is_refused(fields: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="2 to 10000 blocks"):
        Timing(*fields, sessions=1)


@pytest.mark.parametrize(
    ("duration_ms", "runs", "steady"),
    [
        (lambda run: 5.0, 20, True),
        (lambda run: 5.0 if run >= 15 else 9.0, 40, True),  # the window in which it changes is like none beside it
        (lambda run: 5.0 * 1.01**run, 200, False),
        (lambda run: 5.0 * 0.99**run, 200, False),
    ],
    ids=["warm", "cold-at-first", "ever-slower", "ever-faster"],
)
def test_warm_up_goes_on_until_runs_take_the_same_time(
    monkeypatch: pytest.MonkeyPatch, duration_ms: Any, runs: int, steady: bool
) -> None:
    (taken,) = interleave([Timed(monkeypatch, duration_ms)], [IMAGES], Timing(20, 2, 3), 0, 2, SilentConsole())
    assert (taken.warmup_runs, taken.steady) == (runs, steady)


@pytest.mark.parametrize("warmup", [1, 2, 5, 9, 10])
def test_a_single_window_is_not_steady(monkeypatch: pytest.MonkeyPatch, warmup: int) -> None:
    constant, faster = (lambda run: 5.0), (lambda run: 5.0 * 0.9**run)
    (steady,) = interleave([Timed(monkeypatch, constant)], [IMAGES], Timing(warmup, 2, 3), 0, 2, SilentConsole())
    assert (steady.warmup_runs, steady.steady) == (2 * warmup, True)
    (cold,) = interleave([Timed(monkeypatch, faster)], [IMAGES], Timing(warmup, 2, 3), 0, 2, SilentConsole())
    assert (cold.warmup_runs, cold.steady) == (10 * warmup, False)


def test_without_warm_up_nothing_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Timed(monkeypatch, lambda run: 1.0)
    (taken,) = interleave([session], [IMAGES], Timing(0, 2, 3), 0, 2, SilentConsole())
    assert (taken.warmup_runs, taken.steady, session.runs) == (0, None, 2 * (1 + 3))


@pytest.mark.parametrize(("duration_ms", "queries"), [(5.0, 12_000), (200.0, 1024), (60_000 / 1024, 1024)])
def test_a_single_stream_has_both_queries_and_seconds_enough(
    monkeypatch: pytest.MonkeyPatch, duration_ms: float, queries: int
) -> None:
    session = Timed(monkeypatch, lambda run: duration_ms)
    found = single_stream(session, IMAGES, 0, SilentConsole())
    assert found.queries == pytest.approx(queries, abs=1)
    assert found.duration_s == pytest.approx(found.queries * duration_ms / 1000, rel=1e-3)
    assert found.duration_s >= 60
    assert found.latency_ms_p90 == pytest.approx(duration_ms, abs=1e-3)
    assert set(session.seen) == {0.0, 1.0, 2.0, 3.0}  # drawn at random, from all


def test_the_percentiles_of_a_single_stream_are_those_of_its_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = np.random.default_rng(0).uniform(50, 150, 2000)
    found = single_stream(Timed(monkeypatch, lambda run: durations[run]), IMAGES, 0, SilentConsole())
    wanted = np.percentile(durations[: found.queries], (50, 90, 99))
    assert (found.latency_ms_p50, found.latency_ms_p90, found.latency_ms_p99) == pytest.approx(wanted, abs=1e-3)
