"""Runs that are killed (SIGKILL) at random moments of all their parts, and resumed."""

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
class KilledRun:
    """One run: the parts in which it was killed, the files that were half written then, and its end."""

    killed_in: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    ended: bool = False
    different: list[str] = field(default_factory=list)
    decided_otherwise: bool = False


def kill(folder: Path, whole: Whole, kills: int) -> dict[str, int]:
    """Kill `kills` times, over as many runs as that takes, and return the counts."""
    workers = os.cpu_count() or 1
    shares = [kills // workers + (index < kills % workers) for index in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda index: _some(folder, index, shares[index], whole), range(workers))
        all_runs = [run for part in parts for run in part]
    where = Counter(part for run in all_runs for part in run.killed_in)
    print(textwrap.fill("killed in: " + ", ".join(f"{part} {where[part]}" for part in whole.parts_s), 80))
    otherwise = sum(run.decided_otherwise for run in all_runs)
    print(f"other layers left float by measured time: {otherwise} of {len(all_runs)} runs; that file is not compared")
    return {
        "kills": sum(len(run.killed_in) for run in all_runs),
        "recovered": sum(len(run.killed_in) for run in all_runs if run.ended and not run.different),
        "different": sum(bool(run.different) for run in all_runs),
        "half_written": sum(len(run.half_written) for run in all_runs),
    }


def _some(folder: Path, index: int, kills: int, whole: Whole) -> list[KilledRun]:
    rng, killed = np.random.default_rng(index), []
    while kills > 0:
        out = folder / f"killed-{index}-{len(killed)}"
        run = _killed_run(out, whole, min(PER_RUN, kills), rng)
        kills -= len(run.killed_in)
        killed.append(run)
        where, end = ", ".join(run.killed_in) or "nothing", "ended" if run.ended else "did not end"
        print(f"{out.name}: killed in {where}; {end}, {run.different or 'the same'}", flush=True)
        for line in run.half_written:
            print(f"half written: {line}")
    return killed


def _killed_run(out: Path, whole: Whole, kills: int, rng: np.random.Generator) -> KilledRun:
    run = KilledRun()
    for moment in runs.draw(rng, whole, kills):
        process = runs.start(out)
        if not runs.wait_for(moment, process, out, whole):
            run.ended = process.returncode == 0
            process.communicate()
            break
        run.killed_in.append(moment.part)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        run.half_written += runs.half_written(out)
    else:
        process = runs.start(out)
        _, said = process.communicate()
        run.ended = process.returncode == 0
        if not run.ended:
            print(said[-2000:])
    if run.ended:
        run.different = runs.differences(out, whole)
        run.decided_otherwise = runs.decided(out) != whole.decided
    return run
