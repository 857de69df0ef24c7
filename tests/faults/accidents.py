"""Accidents of long runs: full disks, read-only folders, signals, NaN, two runs in a folder, lost boards.

Each must end in one clear line with the right exit code and leave no partially written file. Once the cause is gone,
the same command must produce the results of an undisturbed run.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import runs
from anybody import AS_ANYBODY
from board import Server, board_on_loopback
from runs import Moment, Whole

SIGNALS_PER_RUN = 8
LOST_BOARDS = 8
TIMEOUT_S = 300
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": runs.ROOT}

POISONED = """
import sys, torch
backward, count, chosen = torch.Tensor.backward, 0, int(sys.argv.pop(1))
def poisoned(self, *arguments, **options):
    global count
    count += 1
    return backward(self * float("nan") if count == chosen else self, *arguments, **options)
torch.Tensor.backward = poisoned
from compress.__main__ import main
main()
"""


@dataclass(frozen=True)
class Outcome:
    """One accident and the problems that it caused."""

    accident: str
    problems: tuple[str, ...]


Accident = Callable[[Path, Whole], Iterator[Outcome]]


def full_disks(folder: Path, whole: Whole) -> Iterator[Outcome]:
    """Run on file systems that are too small, then enlarge them."""
    for share in (0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95):
        disk = folder / f"disk-{share}"
        disk.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={int(whole.size_bytes * share)}", "tmpfs", str(disk))
        try:
            problems = _stopped(runs.start(disk / "run"), disk / "run", 1, "No space left on device")
            _mount("-o", f"remount,size={4 * whole.size_bytes}", str(disk))
            yield Outcome(f"a disk with {share:.0%} of the space needed", (*problems, *_ends(disk / "run", whole)))
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def read_only(folder: Path, whole: Whole) -> Iterator[Outcome]:
    """Make folders read-only before and during a run."""
    for part in (None, "0-train", "1-prune", "3-qat", "int8-arm64", runs.AT_END):
        out = folder / f"read-only-{part}"
        out.mkdir(mode=0o700 if part else 0o500)
        process = runs.start(out, **AS_ANYBODY)
        if part is not None:
            runs.wait_for(Moment(part, 0.0), process, out, whole)
            _set_modes(out, 0o500)
        problems = _stopped(process, out, 1, "Permission denied")
        _set_modes(out, 0o700)
        yield Outcome(f"folders are read-only from {part or 'before the start'} on", (*problems, *_ends(out, whole)))


def signals(folder: Path, whole: Whole) -> Iterator[Outcome]:
    """Send SIGINT and SIGTERM to the process group."""
    for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out, rng = folder / sent.name, np.random.default_rng(sent.value)
        for moment in runs.draw(rng, whole, SIGNALS_PER_RUN):
            process = _caught(moment, out, whole)
            os.killpg(process.pid, sent)
            problems = _stopped(process, out, code, "run the same command again to resume")
            yield Outcome(f"{sent.name} in {moment.part}", tuple(problems))
        yield Outcome(f"a run after {SIGNALS_PER_RUN} x {sent.name}", tuple(_ends(out, whole)))


def _caught(moment: Moment, out: Path, whole: Whole) -> subprocess.Popen[str]:
    """Return a run at that moment; if it ended before, start again with half the share."""
    process = runs.start(out)
    while not runs.wait_for(moment, process, out, whole):
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
        shutil.rmtree(out)
        moment, process = replace(moment, share=moment.share / 2), runs.start(out)
    return process


def nan_losses(folder: Path, whole: Whole) -> Iterator[Outcome]:
    """Make one loss NaN, in the middle or at the end of an epoch of any stage."""
    for number in (5, 9, 36, 45, 60, 80, 95):
        out = folder / f"nan-{number}"
        problems = _stopped(runs.start(out, ("-c", POISONED, str(number))), out, 1, "try a lower lr")
        yield Outcome(f"the gradient of batch {number} is NaN", (*problems, *_ends(out, whole)))


def two_runs(folder: Path, whole: Whole) -> Iterator[Outcome]:
    """Start a second run in a folder, then kill the first and take over its lock."""
    out = folder / "two"
    first = runs.start(out)
    runs.wait_for(Moment("0-train", 0.5), first, out, whole)
    second = runs.start(out)
    problems = _stopped(second, out, 2, f"process {first.pid} on {platform.node()} works in it")
    problems += ["the first run has ended"] if first.poll() is not None else []
    yield Outcome("a second run in a folder is refused", tuple(problems))
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    stale = [] if str(first.pid) in (out / "lock").read_text() else ["there is no stale lock"]
    yield Outcome("the lock of a killed run is taken over", (*stale, *_ends(out, whole)))


def lost_boards(folder: Path, whole: Whole) -> Iterator[Outcome]:
    """Kill a board while a bundle is copied, verified or measured there, then start it again."""
    root = folder / "board"
    root.mkdir()
    out, tar = root / "run", root / "bundle.tar"
    problems = _ends(out, whole)
    done = _compress("bundle", str(out), "-o", str(tar))
    assert done.returncode == 0, done.stderr
    with board_on_loopback(root / "net") as server:
        began = time.monotonic()
        done = _deploy(server, out, tar)
        length_s = time.monotonic() - began
        yield Outcome(
            "a board that stays reachable", (*problems, *([] if done.returncode == 0 else [done.stderr[-500:]]))
        )
        for index in range(LOST_BOARDS):
            shutil.rmtree(server.home)
            server.home.mkdir()
            yield Outcome(f"a board lost after {index / LOST_BOARDS:.0%} of a deployment",
                       tuple(_lost(server, out, tar, length_s * index / LOST_BOARDS)))  # fmt: skip


def _lost(server: Server, out: Path, tar: Path, after_s: float) -> list[str]:
    process = subprocess.Popen(_deployment(server, out, tar), **PIPES)
    time.sleep(after_s)
    server.kill()
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    problems = _one_line(stderr, "")
    problems += [] if process.returncode in (1, 2) else [f"exit code {process.returncode}"]
    server.start()
    again = _deploy(server, out, tar)
    problems += [] if again.returncode == 0 else [f"the repeated command failed: {again.stderr[-500:]}"]
    return problems + [f"partial file: {path.name}" for path in server.home.rglob("*.partial")]


def _deployment(server: Server, out: Path, tar: Path) -> list[str]:
    board = f"{server.board.user}@{server.board.host}:{server.board.port}"
    return [sys.executable, "-m", "compress", "deploy", str(tar), board, "--run", str(out), "--identity",
            str(server.board.identity), "--known-hosts", str(server.known_hosts), "--python",
            server.board.python]  # fmt: skip


def _deploy(server: Server, out: Path, tar: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_deployment(server, out, tar), timeout=TIMEOUT_S, **PIPES)


def _compress(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "compress", *arguments], timeout=TIMEOUT_S, **PIPES)


def _stopped(process: subprocess.Popen[str], out: Path, code: int, words: str) -> list[str]:
    """Return the problems with how a run stopped."""
    try:
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return [f"no end within {TIMEOUT_S} s"]
    problems = [] if process.returncode == code else [f"exit code {process.returncode}, not {code}: {stderr[-500:]}"]
    return [*problems, *_one_line(stderr, words), *(f"partially written: {path}" for path in runs.half_written(out))]


def _one_line(stderr: str, words: str) -> list[str]:
    """Return the problems with standard error, whose last line must be the only error and contain `words`."""
    lines = [line for line in stderr.splitlines() if line.startswith("compress: ")]
    problems = [f"a traceback: {stderr[-2000:]}"] if "Traceback" in stderr or "Exception ignored" in stderr else []
    if len(lines) != 1 or words not in lines[0] or stderr.splitlines()[-1] != lines[0]:
        problems.append(f"no single last line with '{words}': {stderr[-500:]}")
    return problems


def _ends(out: Path, whole: Whole) -> list[str]:
    """Run to the end and return the differences from the undisturbed run."""
    process = runs.start(out)
    _, stderr = process.communicate()
    if process.returncode:
        return [f"the repeated command failed: {stderr[-1000:]}"]
    return [f"different {name}" for name in runs.differences(out, whole)]


def _set_modes(out: Path, mode: int) -> None:
    for path in (out, *(path for path in out.rglob("*") if path.is_dir())):
        path.chmod(mode)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


ACCIDENTS: tuple[Accident, ...] = (full_disks, read_only, signals, nan_losses, two_runs, lost_boards)
