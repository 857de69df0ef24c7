"""Measure energy per call with the system's energy counters, or else with sampled power."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from runtimes.files import Json
from runtimes.session import Images, Session
from runtimes.target import Target
from runtimes.telemetry import UNKNOWN, Unknown, counted_j, watts_now

GPU_RAIL = "gpu"  # the rail that nvidia-smi reports
BUSY_S = 2.0  # how long the session runs; sensors average over up to a second, so the first second is not sampled
SETTLING_S, EVERY_S = 1.0, 0.1


def can_measure(reading: Json, target: Target) -> bool:
    """Return whether a telemetry reading (as JSON) has energy or power of the target's device."""
    rails = {rail for name in ("energy_j", "power_w") if reading[name] != UNKNOWN for rail in reading[name]}
    return bool(_rails_of(dict.fromkeys(rails, 0.0), target))


def per_call_mj(
    session: Session, inputs: list[Images], target: Target, root: Path = Path("/")
) -> dict[str, float] | Unknown:
    """Return millijoules per call by power rail, including idle power, while the machine does nothing but call.

    A rail belongs to a counter (RAPL) or a sensor, such as VDD_IN for a Jetson's whole module. The graphics card's rail
    is omitted where the target runs on the CPU.
    """
    samples: list[dict[str, float]] = []
    done = threading.Event()
    sampler = threading.Thread(target=_sample, args=(root, samples, done), daemon=True)
    first, start = counted_j(root), time.monotonic()
    sampler.start()
    calls = 0
    while (elapsed_s := time.monotonic() - start) < BUSY_S:
        session.run(inputs[calls % len(inputs)])
        calls += 1
    last = counted_j(root)
    done.set()
    sampler.join()
    power_w = {rail: sum(sample[rail] for sample in samples) / len(samples)
               for rail in (samples[0] if samples else {}) if all(rail in sample for sample in samples)}  # fmt: skip
    # A counter that overflowed is lower than before, and is skipped.
    power_w.update(
        {rail: (last[rail] - first[rail]) / elapsed_s for rail in first if last.get(rail, -1) >= first[rail]}
    )
    return {
        rail: round(1000 * watts * elapsed_s / calls, 4) for rail, watts in _rails_of(power_w, target).items()
    } or UNKNOWN


def _rails_of(rails_w: dict[str, float], target: Target) -> dict[str, float]:
    return {rail: watts for rail, watts in rails_w.items() if rail != GPU_RAIL or target.provider == "cuda"}


def _sample(root: Path, samples: list[dict[str, float]], done: threading.Event) -> None:
    wait_s = SETTLING_S
    while not done.wait(wait_s):
        samples.append(watts_now(root))
        wait_s = EVERY_S
