"""What else happens to long runs: full disks, folders that may not be written, NaN, signals, two runs, lost boards.

Each is one clear line with the right exit code, leaves nothing half written, and once the cause is gone the same
command ends with what an undisturbed run makes.
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
PATIENCE_S = 300
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
class Told:
    """One accident: what it was, and all that was wrong about what came of it."""

    what: str
    wrong: tuple[str, ...]


Accident = Callable[[Path, Whole], Iterator[Told]]


def full_disks(folder: Path, whole: Whole) -> Iterator[Told]:
    """Run on small file systems, then make room."""
    for share in (0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95):
        disk = folder / f"disk-{share}"
        disk.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={int(whole.size_bytes * share)}", "tmpfs", str(disk))
        try:
            wrong = _stopped(runs.start(disk / "run"), disk / "run", 1, "No space left on device")
            _mount("-o", f"remount,size={4 * whole.size_bytes}", str(disk))
            yield Told(f"a disk of {share:.0%} of what is needed", (*wrong, *_ends(disk / "run", whole)))
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def read_only(folder: Path, whole: Whole) -> Iterator[Told]:
    """Take the right to write from folders, before and while they are written."""
    for part in (None, "0-train", "1-prune", "3-qat", "int8-arm64", runs.AT_END):
        out = folder / f"read-only-{part}"
        out.mkdir(mode=0o700 if part else 0o500)
        process = runs.start(out, **AS_ANYBODY)
        if part is not None:
            runs.wait_for(Moment(part, 0.0), process, out, whole)
            _set_modes(out, 0o500)
        wrong = _stopped(process, out, 1, "Permission denied")
        _set_modes(out, 0o700)
        yield Told(f"folders may not be written from {part or 'before it starts'} on", (*wrong, *_ends(out, whole)))


def signals(folder: Path, whole: Whole) -> Iterator[Told]:
    """Send Ctrl-C's signal and the scheduler's, to the whole group of processes."""
    for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out, rng = folder / sent.name, np.random.default_rng(sent.value)
        for moment in runs.draw(rng, whole, SIGNALS_PER_RUN):
            process = _caught(moment, out, whole)
            os.killpg(process.pid, sent)
            wrong = _stopped(process, out, code, "run the same command again to resume")
            yield Told(f"{sent.name} in {moment.part}", tuple(wrong))
        yield Told(f"a run after all of {sent.name}", tuple(_ends(out, whole)))


def _caught(moment: Moment, out: Path, whole: Whole) -> subprocess.Popen[str]:
    """Return a run at that moment; one that was quicker than the undisturbed one begins anew, and is met earlier."""
    process = runs.start(out)
    while not runs.wait_for(moment, process, out, whole):
        _, said = process.communicate()
        assert process.returncode == 0, said
        shutil.rmtree(out)
        moment, process = replace(moment, share=moment.share / 2), runs.start(out)
    return process


def nan_losses(folder: Path, whole: Whole) -> Iterator[Told]:
    """Let one loss of all the stages' be NaN, in the middle and at the end of an epoch."""
    for number in (5, 9, 36, 45, 60, 80, 95):
        out = folder / f"nan-{number}"
        wrong = _stopped(runs.start(out, ("-c", POISONED, str(number))), out, 1, "try a lower lr")
        yield Told(f"the gradient of batch {number} is NaN", (*wrong, *_ends(out, whole)))


def two_runs(folder: Path, whole: Whole) -> Iterator[Told]:
    """Start a second run on a folder; kill the first, whose lock is then taken over."""
    out = folder / "two"
    first = runs.start(out)
    runs.wait_for(Moment("0-train", 0.5), first, out, whole)
    second = runs.start(out)
    wrong = _stopped(second, out, 2, f"process {first.pid} on {platform.node()} works in it")
    wrong += ["the first has ended"] if first.poll() is not None else []
    yield Told("a second run on a folder is refused", tuple(wrong))
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    stale = [] if str(first.pid) in (out / "lock").read_text() else ["there was no stale lock to take over"]
    yield Told("a killed run's lock is taken over", (*stale, *_ends(out, whole)))


def lost_boards(folder: Path, whole: Whole) -> Iterator[Told]:
    """Kill a board with its sessions while a bundle is copied, verified or measured there; then it is back."""
    root = folder / "board"
    root.mkdir()
    out, tar = root / "run", root / "bundle.tar"
    wrong = _ends(out, whole)
    done = _compress("bundle", str(out), "-o", str(tar))
    assert done.returncode == 0, done.stderr
    with board_on_loopback(root / "net") as server:
        began = time.monotonic()
        done = _deploy(server, out, tar)
        length_s = time.monotonic() - began
        yield Told("a board that stays", (*wrong, *([] if done.returncode == 0 else [done.stderr[-500:]])))
        for index in range(LOST_BOARDS):
            shutil.rmtree(server.home)
            server.home.mkdir()
            yield Told(f"a board lost after {index / LOST_BOARDS:.0%} of a deployment",
                       tuple(_lost(server, out, tar, length_s * index / LOST_BOARDS)))  # fmt: skip


def _lost(server: Server, out: Path, tar: Path, after_s: float) -> list[str]:
    process = subprocess.Popen(_deployment(server, out, tar), **PIPES)
    time.sleep(after_s)
    server.kill()
    _, said = process.communicate(timeout=PATIENCE_S)
    wrong = _one_line(said, "")
    wrong += [] if process.returncode in (1, 2) else [f"exit code {process.returncode}"]
    server.start()
    again = _deploy(server, out, tar)
    wrong += [] if again.returncode == 0 else [f"it did not go on: {again.stderr[-500:]}"]
    return wrong + [f"left behind: {path.name}" for path in server.home.rglob("*.partial")]


def _deployment(server: Server, out: Path, tar: Path) -> list[str]:
    board = f"{server.board.user}@{server.board.host}:{server.board.port}"
    return [sys.executable, "-m", "compress", "deploy", str(tar), board, "--run", str(out), "--identity",
            str(server.board.identity), "--known-hosts", str(server.known_hosts), "--python",
            server.board.python]  # fmt: skip


def _deploy(server: Server, out: Path, tar: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_deployment(server, out, tar), timeout=PATIENCE_S, **PIPES)


def _compress(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "compress", *arguments], timeout=PATIENCE_S, **PIPES)


def _stopped(process: subprocess.Popen[str], out: Path, code: int, words: str) -> list[str]:
    """Return what is wrong with how a run stopped."""
    try:
        _, said = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return [f"it did not end within {PATIENCE_S} s"]
    wrong = [] if process.returncode == code else [f"exit code {process.returncode}, not {code}: {said[-500:]}"]
    return [*wrong, *_one_line(said, words), *(f"half written: {what}" for what in runs.half_written(out))]


def _one_line(said: str, words: str) -> list[str]:
    """Return what is wrong with what was said: it ends in one line, the only one of its kind, with those words."""
    lines = [line for line in said.splitlines() if line.startswith("compress: ")]
    wrong = [f"a traceback: {said[-2000:]}"] if "Traceback" in said or "Exception ignored" in said else []
    if len(lines) != 1 or words not in lines[0] or said.splitlines()[-1] != lines[0]:
        wrong.append(f"no single last line with '{words}': {said[-500:]}")
    return wrong


def _ends(out: Path, whole: Whole) -> list[str]:
    """Run to the end; return what is wrong with that."""
    process = runs.start(out)
    _, said = process.communicate()
    if process.returncode:
        return [f"it did not end after that: {said[-1000:]}"]
    return [f"another {name}" for name in runs.differences(out, whole)]


def _set_modes(out: Path, mode: int) -> None:
    for path in (out, *(path for path in out.rglob("*") if path.is_dir())):
        path.chmod(mode)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


ACCIDENTS: tuple[Accident, ...] = (full_disks, read_only, signals, nan_losses, two_runs, lost_boards)
