"""Under which conditions a latency was taken, told in lines: slow runs, warm-up, throttling, energy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from runtimes.measure import Measurement
from runtimes.telemetry import UNKNOWN, throttled_between

SLOW = 1.5  # times p50, beyond which a run is called slow


def slow_runs(one: Measurement) -> int:
    """Return how many timed runs took more than 1.5 times p50."""
    return int(np.sum(np.asarray(one.latency_ms) > SLOW * one.latency_ms_p50))


def lines(measurements: Iterable[Measurement]) -> list[str]:
    """Return what there is to know of measurements of one target, which were taken together."""
    found: list[str] = []
    taken = list(measurements)
    for one in taken:
        runs, slow = np.size(one.latency_ms), slow_runs(one)
        warm = {None: "", 0: " without warm-up"}.get(one.warmup_runs, f" after {one.warmup_runs} of warm-up")
        found.append(f"{one.artifact}: {runs} runs{warm}, {slow} of them over {SLOW:g} times p50")
        if one.steady is False:
            found.append(f"{one.artifact}: not steady; runs still got faster or slower when the warm-up ended")
    state = taken[0].telemetry if taken else {}
    if state:
        throttled = throttled_between(state["before"], state["after"])
        if throttled == UNKNOWN:
            found.append("whether the machine throttled is unknown, the system does not show it")
        else:
            found.append(f"throttled while it was timed: {', '.join(throttled)}" if throttled else "nothing throttled")
    for one in taken:
        if one.energy_mj != UNKNOWN:
            rails = ", ".join(f"{rail} {mj:.3g}" for rail, mj in one.energy_mj.items())
            found.append(f"{one.artifact}: millijoules per call by rail, all that it used meanwhile: {rails}")
    if taken and all(one.energy_mj == UNKNOWN for one in taken):
        found.append("energy is unknown, the system does not show it")
    return found
