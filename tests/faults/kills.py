"""Kills real runs at seeded moments and starts them again: does each end, with what an undisturbed run makes?

    kills         -9 at a moment drawn over the whole length of a run, up to six to each run
    recovered     kills whose run ended rightly after a restart
    different     runs that ended with other weights, plans, files or answers than the undisturbed one
    half_written  files under the name of a result that can't be read as what they are, looked for after every kill

The last line is JSON.

    make test-faults [KILLS=100]
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors import SafetensorError, safe_open

from runtimes.files import sha256_file

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("all_stages.yaml")
KILLS = int(os.environ.get("KILLS") or 100)
MOST_PER_RUN, SOONEST_S = 6, 0.3
THREADS = 2  # of each run; as many runs at once as there are cores for
TOGETHER = max(1, (os.cpu_count() or 1) // THREADS)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}


def main() -> None:
    """Print what became of each run, then the counts as JSON."""
    with tempfile.TemporaryDirectory(prefix="compress-kills-") as name:
        whole, length_s = undisturbed(Path(name) / "undisturbed")
        print(f"undisturbed: {length_s:.0f} s; {len(whole)} results to compare")
        shares = [KILLS // TOGETHER + (index < KILLS % TOGETHER) for index in range(TOGETHER)]
        with ThreadPoolExecutor(TOGETHER) as pool:
            parts = pool.map(lambda index: tortured(Path(name), index, shares[index], whole, length_s), range(TOGETHER))
            found = [one for part in parts for one in part]
    where = Counter(step for one in found for step in one["killed_in"])
    print("killed in: " + ", ".join(f"{step} {count}" for step, count in sorted(where.items())))
    counts = {
        "kills": sum(len(one["killed_in"]) for one in found),
        "recovered": sum(len(one["killed_in"]) for one in found if one["ended"] and not one["different"]),
        "different": sum(bool(one["different"]) for one in found),
        "half_written": sum(one["half_written"] for one in found),
    }
    print(json.dumps(counts))
    sys.exit(counts != {"kills": KILLS, "recovered": KILLS, "different": 0, "half_written": 0})


def undisturbed(out: Path) -> tuple[dict[str, str], float]:
    """Return the results of a run that nobody disturbs, and how long it took."""
    start = time.monotonic()
    done = subprocess.run(command(out), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return results(out), time.monotonic() - start


def tortured(folder: Path, index: int, kills: int, whole: dict[str, str], length_s: float) -> list[dict[str, Any]]:
    """Return what became of runs that were killed so often, all together."""
    rng, runs = random.Random(index), []
    while kills > 0:
        out = folder / f"{index}-{len(runs)}"
        told: dict[str, Any] = {"killed_in": [], "half_written": 0, "ended": False, "different": []}
        while len(told["killed_in"]) < min(MOST_PER_RUN, kills) and not told["ended"]:
            told["ended"] = attempt(out, rng.uniform(SOONEST_S, length_s), told)
        if not told["ended"]:
            told["ended"] = attempt(out, None, told)
        if told["ended"]:
            mine = results(out)
            told["different"] = sorted(name for name in {*whole, *mine} if whole.get(name) != mine.get(name))
        kills -= len(told["killed_in"])
        runs.append(told)
        where, end = ", ".join(told["killed_in"]) or "nothing", "ended" if told["ended"] else "did not end"
        print(f"run {index}-{len(runs)}: killed in {where}; {end}; {told['different'] or 'the same'}", flush=True)
    return runs


def attempt(out: Path, after_s: float | None, told: dict[str, Any]) -> bool:
    """Run, and kill it after so long unless it has ended by then; return whether it ended well."""
    process = subprocess.Popen(
        command(out),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        told["killed_in"].append(step_at_work(out))
        told["half_written"] += sum(1 for _ in half_written(out))
        return False
    if process.returncode:
        print(said.decode(errors="replace")[-2000:])
    return process.returncode == 0


def command(out: Path) -> list[str]:
    """Return the command of a run in a folder."""
    return [sys.executable, "-m", "compress", "run", str(RECIPE), "--out", str(out)]


def step_at_work(out: Path) -> str:
    """Return the name of the step that is not done, 'before' and 'between' where there is none."""
    steps = [step for step in out.glob("steps/*") if not (step / "done.json").exists()]
    newest = max(steps, key=lambda step: step.stat().st_mtime, default=None)
    if newest is None:
        return "between" if (out / "steps").exists() else "before"
    return newest.name.rpartition("-")[0]


def results(out: Path) -> dict[str, str]:
    """Return what of a finished run must not depend on how often it was disturbed."""
    found = {}
    for pattern in ("steps/*/network.safetensors", "steps/*/plan-*.json", "artifacts/*.onnx", "splits.json"):
        for path in sorted(out.glob(pattern)):
            found[str(path.relative_to(out))] = sha256_file(path)
    report = json.loads((out / "report.json").read_text())
    for one in report["measurements"]:
        found[f"answers of {one['artifact']}"] = str(one["predicted"])
    found["falls"] = json.dumps(report["falls"])
    return found


def half_written(out: Path) -> Iterator[Path]:
    """Give every file that has the name of a result and can't be read as one."""
    for path in out.rglob("*"):
        if path.is_file() and not path.name.endswith(".tmp") and path.name not in ("run.log", "lock"):
            try:
                read(path)
            except (ValueError, OSError, EOFError, SafetensorError, onnx.checker.ValidationError) as error:
                print(f"half written: {path}: {error}")
                yield path


def read(path: Path) -> None:
    """Read a file as what its name says; raises where it is not that."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        with safe_open(path, "numpy") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                opened.get_tensor(name)
    elif path.suffix == ".onnx":
        onnx.checker.check_model(onnx.load(path))
    elif path.suffix == ".npy":
        np.load(path, allow_pickle=False)
    elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("no end")
    elif not path.stat().st_size:
        raise ValueError("empty")


if __name__ == "__main__":
    main()
