"""Energy per call, where the system shows it: by its counters, else by power sampled while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtimes.session import Images, Session
from runtimes.target import Target
from runtimes.telemetry import UNKNOWN, Unknown, counted_j, watts_now

CARD = "gpu"  # the rail that nvidia-smi tells of
BUSY_S = 2.0  # how long a session works to be seen; sensors average over up to a second, which is left out
SETTLING_S, EVERY_S = 1.0, 0.1


def is_known(state: Mapping[str, Any], target: Target) -> bool:
    """Whether a reading of telemetry, as JSON, shows energy or power of what a target runs on."""
    rails = {rail for name in ("energy_j", "power_w") if state[name] != UNKNOWN for rail in state[name]}
    return bool(_of(dict.fromkeys(rails, 0.0), target))


def per_call_mj(
    session: Session, inputs: list[Images], target: Target, root: Path = Path("/")
) -> dict[str, float] | Unknown:
    """Return millijoules of a call by rail, all that the rail used while the machine did nothing else but call.

    A rail is a counter's (RAPL) or a sensor's, such as VDD_IN, which is a Jetson's whole module; a graphics card's is
    left out where the target does not run on it.
    """
    samples: list[dict[str, float]] = []
    done = threading.Event()
    sampler = threading.Thread(target=_sample, args=(root, samples, done), daemon=True)
    first, start = counted_j(root), time.monotonic()
    sampler.start()
    calls = 0
    while (passed_s := time.monotonic() - start) < BUSY_S:
        session.run(inputs[calls % len(inputs)])
        calls += 1
    last = counted_j(root)
    done.set()
    sampler.join()
    power_w = {rail: sum(one[rail] for one in samples) / len(samples)
               for rail in (samples[0] if samples else {}) if all(rail in one for one in samples)}  # fmt: skip
    # A counter that ran over, and so is lower, tells nothing.
    power_w.update({rail: (last[rail] - first[rail]) / passed_s for rail in first if last.get(rail, -1) >= first[rail]})
    return {rail: round(1000 * watts * passed_s / calls, 4) for rail, watts in _of(power_w, target).items()} or UNKNOWN


def _of(rails_w: dict[str, float], target: Target) -> dict[str, float]:
    return {rail: watts for rail, watts in rails_w.items() if rail != CARD or target.provider == "cuda"}


def _sample(root: Path, samples: list[dict[str, float]], done: threading.Event) -> None:
    wait_s = SETTLING_S
    while not done.wait(wait_s):
        samples.append(watts_now(root))
        wait_s = EVERY_S
