"""Real runs that are killed (-9) at seeded moments of all their parts, and started again."""

from __future__ import annotations

import os
import signal
import textwrap
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import runs
from runs import Whole

PER_RUN = 6


@dataclass
class Tortured:
    """One run: in which parts it was killed, what was half written then, and how it ended."""

    killed_in: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    ended: bool = False
    different: list[str] = field(default_factory=list)
    decided_otherwise: bool = False


def kill(folder: Path, whole: Whole, kills: int) -> dict[str, int]:
    """Kill so often, in as many runs as that takes, and return what is counted."""
    together = os.cpu_count() or 1
    shares = [kills // together + (index < kills % together) for index in range(together)]
    with ThreadPoolExecutor(together) as pool:
        parts = pool.map(lambda index: _some(folder, index, shares[index], whole), range(together))
        found = [one for part in parts for one in part]
    where = Counter(part for one in found for part in one.killed_in)
    print(textwrap.fill("killed in: " + ", ".join(f"{part} {where[part]}" for part in whole.parts_s), 80))
    otherwise = sum(one.decided_otherwise for one in found)
    print(f"other first layers left float by the clock: {otherwise} of {len(found)} runs; that file is not compared")
    return {
        "kills": sum(len(one.killed_in) for one in found),
        "recovered": sum(len(one.killed_in) for one in found if one.ended and not one.different),
        "different": sum(bool(one.different) for one in found),
        "half_written": sum(len(one.half_written) for one in found),
    }


def _some(folder: Path, index: int, kills: int, whole: Whole) -> list[Tortured]:
    rng, found = np.random.default_rng(index), []
    while kills > 0:
        out = folder / f"killed-{index}-{len(found)}"
        one = _tortured(out, whole, min(PER_RUN, kills), rng)
        kills -= len(one.killed_in)
        found.append(one)
        where, end = ", ".join(one.killed_in) or "nothing", "ended" if one.ended else "DID NOT END"
        print(f"{out.name}: killed in {where}; {end}, {one.different or 'the same'}", flush=True)
        for line in one.half_written:
            print(f"half written: {line}")
    return found


def _tortured(out: Path, whole: Whole, kills: int, rng: np.random.Generator) -> Tortured:
    one = Tortured()
    for moment in runs.draw(rng, whole, kills):
        process = runs.start(out)
        if not runs.wait_for(moment, process, out, whole):
            one.ended = process.returncode == 0
            process.communicate()
            break
        one.killed_in.append(moment.part)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        one.half_written += runs.half_written(out)
    else:
        process = runs.start(out)
        _, said = process.communicate()
        one.ended = process.returncode == 0
        if not one.ended:
            print(said[-2000:])
    if one.ended:
        one.different = runs.differences(out, whole)
        one.decided_otherwise = runs.decided(out) != whole.decided
    return one
