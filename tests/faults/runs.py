"""Runs to disturb, moments for that, and the results that must not depend on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from safetensors import SafetensorError, safe_open

from runtimes.artifact import Artifact
from runtimes.errors import CompressError
from runtimes.files import sha256_file
from runtimes.lineage import Attempt, QuantizeRecord, find_record

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("all_stages.yaml")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # one run per core at a time
AT_START, AT_END = "start", "report"  # parts of a run before and after its steps
POLL_S = 0.002
CLOCKED = "model-int8-x86"  # measured time decides which of its layers stay float


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its results, the decisions by measured time, and the duration of each part, in order."""

    results: dict[str, str]
    decided: dict[str, Any]
    parts_s: dict[str, float]
    size_bytes: int


@dataclass(frozen=True)
class Moment:
    """A moment in a part of a run, as a share of its duration."""

    part: str
    share: float


def undisturbed(out: Path) -> Whole:
    """Run to the end without disturbance."""
    began = time.time()
    process = start(out)
    _, said = process.communicate()
    assert process.returncode == 0, said
    ended = time.time()
    done = sorted(out.glob("steps/*/done.json"), key=lambda path: path.stat().st_mtime)
    parts = {AT_START: done[0].stat().st_mtime - began}
    for path in done:
        parts.setdefault(_name(path.parent), json.loads(path.read_text())["duration_s"])
    parts[AT_END] = ended - done[-1].stat().st_mtime
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Whole(results(out), decided(out), parts, size)


def start(out: Path, program: tuple[str, ...] = ("-m", "compress"), **options: Any) -> subprocess.Popen[str]:
    """Start the recipe in a folder, in its own process group, with the default handler of SIGINT."""
    command = [sys.executable, *program, "run", str(RECIPE), "--out", str(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # nohup and & ignore it
    return subprocess.Popen(command, **{"cwd": ROOT, "env": ENVIRONMENT, **quiet, **listening, **options})


def draw(rng: np.random.Generator, whole: Whole, count: int) -> list[Moment]:
    """Return random moments in order: half weighted by the duration of the parts, half uniform over the parts."""
    names, lengths = list(whole.parts_s), np.asarray(list(whole.parts_s.values()))
    chances = 0.5 * lengths / lengths.sum() + 0.5 / len(names)
    chosen = np.sort(rng.choice(len(names), count, p=chances))
    return [Moment(names[index], float(rng.uniform())) for index in chosen]


def wait_for(moment: Moment, process: subprocess.Popen[str], out: Path, whole: Whole) -> bool:
    """Wait until a process reaches the moment, or a later part; return whether it still runs."""
    names = list(whole.parts_s)
    later = set(names[names.index(moment.part) :])
    while process.poll() is None and not _reached(moment, later, process, out, names):
        time.sleep(POLL_S)
    time.sleep(moment.share * whole.parts_s[moment.part])
    return process.poll() is None


def _reached(moment: Moment, later: set[str], process: subprocess.Popen[str], out: Path, names: list[str]) -> bool:
    if moment.part == AT_START:
        return True
    if moment.part == AT_END:
        return {_name(path.parent) for path in out.glob("steps/*/done.json")} >= set(names) - {AT_START, AT_END}
    return bool(later & set(at_work(out, process.pid)))


def at_work(out: Path, pid: int) -> list[str]:
    """Return the names of the steps that a process has started, the newest last."""
    locks = [
        lock for lock in out.glob("steps/*/lock") if lock.read_text(errors="replace").startswith(f"process {pid} ")
    ]
    return [_name(lock.parent) for lock in sorted(locks, key=lambda lock: lock.stat().st_mtime)]


def _name(step: Path) -> str:
    return step.name.rpartition("-")[0]


def results(out: Path) -> dict[str, str]:
    """Return the results of a finished run that must not depend on disturbances, by name."""
    values = {}
    for pattern in ("steps/*/network.safetensors", "steps/*/plan-*.json", "artifacts/*.onnx", "splits.json"):
        for path in sorted(out.glob(pattern)):
            values[str(path.relative_to(out))] = sha256_file(path)
    report = json.loads((out / "report.json").read_text())
    for measurement in report["measurements"]:
        values[f"predictions of {measurement['artifact']}"] = str(measurement["predicted"])
    values["accuracy_steps"] = json.dumps(
        [step for step in report["accuracy_steps"] if CLOCKED not in json.dumps(step)]
    )
    return values


def decided(out: Path) -> dict[str, Any]:
    """Return the attempts of each INT8 file that depends on measured time, with whether they were kept."""
    files = sorted(out.glob(f"artifacts/{CLOCKED}*.onnx"))
    return {file.name: [[attempt.step, attempt.kept] for attempt in _attempts(file)] for file in files}


def _attempts(file: Path) -> tuple[Attempt, ...]:
    record = find_record(Artifact.load(file).manifest.lineage, QuantizeRecord)
    return (record and record.attempts) or ()


def differences(out: Path, whole: Whole) -> list[str]:
    """Return the names of results that differ, except for files whose decisions by measured time differ."""
    mine, clock = results(out), decided(out)
    otherwise = {name for name, what in whole.decided.items() if clock.get(name) != what}
    names = {name for name in {*whole.results, *mine} if whole.results.get(name) != mine.get(name)}
    return sorted(name for name in names if not any(file in name for file in otherwise))


def half_written(out: Path) -> Iterator[str]:
    """Yield a line for every file that has the name of a result and can't be read."""
    for path in out.rglob("*"):
        if path.is_file() and not path.name.endswith(".tmp") and path.name not in ("run.log", "lock"):
            try:
                _read(path)
            except (ValueError, OSError, EOFError, SafetensorError, DecodeError, CompressError) as error:
                yield f"{path}: {error}"
            except onnx.checker.ValidationError as error:
                yield f"{path}: {error}"


def _read(path: Path) -> None:
    """Read a file by its suffix; raises if it is damaged."""
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
