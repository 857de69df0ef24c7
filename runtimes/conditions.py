"""Describe the conditions of a measurement in lines of text: slow runs, warm-up, throttling, energy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from runtimes.measure import Measurement
from runtimes.telemetry import UNKNOWN, throttled_between

SLOW = 1.5  # times p50, above which a run counts as slow


def slow_runs(measurement: Measurement) -> int:
    """Return the number of timed runs that took more than 1.5 times p50."""
    return int(np.sum(np.asarray(measurement.latency_ms) > SLOW * measurement.latency_ms_p50))


def lines(measurements: Iterable[Measurement]) -> list[str]:
    """Return the conditions of measurements of one target that were made together."""
    together = list(measurements)
    described: list[str] = []
    for each in together:
        runs, slow = np.size(each.latency_ms), slow_runs(each)
        warmup = {None: "", 0: "; no warm-up"}.get(each.warmup_runs, f"; {each.warmup_runs} warm-up runs before")
        described.append(f"{each.artifact}: {runs} timed runs, {slow} of them slower than {SLOW:g} x p50{warmup}")
        if each.steady is False:
            described.append(f"{each.artifact}: not steady; latency was still changing when the warm-up ended")
    readings = together[0].telemetry if together else {}
    if readings:
        throttled = throttled_between(readings["before"], readings["after"])
        if throttled == UNKNOWN:
            described.append("throttling: unknown, the system does not show it")
        else:
            described.append(
                f"throttled during the timed runs: {', '.join(throttled)}" if throttled else "no throttling"
            )
    for each in together:
        if each.energy_mj != UNKNOWN:
            rails = ", ".join(f"{rail} {mj:.3g}" for rail, mj in each.energy_mj.items())
            described.append(f"{each.artifact}: millijoules per call by rail, idle power included: {rails}")
    if together and all(each.energy_mj == UNKNOWN for each in together):
        described.append("energy: unknown, the system does not show it")
    return described
