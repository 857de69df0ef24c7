"""Run commands of `bench_onnx.py` with limits of memory and time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from onnx_networks import ROOT

HERE = Path(__file__).resolve().parent
GIB = 2**30
POLL_S = 0.2

# Sets the limit of memory, then becomes the command.
LAUNCHER = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Limits:
    """Limits of one process."""

    seconds: float
    gib: float

    def scaled(self, factor: float) -> Limits:
        """Return the same limits with more or less time."""
        return Limits(self.seconds * factor, self.gib)


@dataclass(frozen=True)
class Ended:
    """A process that ended. code: its exit code, negative for a signal, None after the limit of time."""

    code: int | None
    output: str
    peak_mib: int
    cpu_s: float
    duration_s: float

    @property
    def last_line(self) -> str:
        """Return the last line of its output that has words, without the box that click draws around errors."""
        lines = (line.strip("│ ") for line in reversed(self.output.splitlines()))
        return next((line for line in lines if any(letter.isalnum() for letter in line)), "")

    @property
    def message(self) -> str:
        """Return why it failed, in one line."""
        if self.code is None:
            return f"limit of time after {self.duration_s:.0f} s: {self.last_line}"[:300]
        return f"exit code {self.code}: {self.last_line}"[:300]


class Processes:
    """Runs limited processes from several threads, and ends them all on exit."""

    def __init__(self) -> None:
        self._running: set[int] = set()
        self._lock = threading.Lock()
        self.is_stopped = False

    def run(self, command: list[str], log: Path, limits: Limits) -> Ended:
        """Run Python with these arguments in its own session; kill it and its children after the limit of time.

        Raises KeyboardInterrupt after `stop`, so that killed processes leave no results.
        """
        start = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
                       "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}  # fmt: skip
        launch = [sys.executable, "-c", LAUNCHER, str(int(limits.gib * GIB)), sys.executable, *command]
        with log.open("w") as stream, self._lock:
            if self.is_stopped:
                raise KeyboardInterrupt
            process = subprocess.Popen(launch, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                       env=environment, cwd=ROOT, start_new_session=True)  # fmt: skip
            self._running.add(process.pid)
        is_late = False
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if not is_late and time.monotonic() - start > limits.seconds:
                is_late = True
                _kill(process.pid)
            time.sleep(POLL_S)
        with self._lock:
            self._running.discard(process.pid)
            if self.is_stopped:
                raise KeyboardInterrupt
        process.returncode = os.waitstatus_to_exitcode(status)
        code = None if is_late else process.returncode
        return Ended(
            code,
            log.read_text(errors="replace"),
            usage.ru_maxrss // 1024,
            usage.ru_utime + usage.ru_stime,
            time.monotonic() - start,
        )

    def stop(self) -> None:
        """Kill all running processes and start no more."""
        with self._lock:
            self.is_stopped = True
            for pid in self._running:
                _kill(pid)


def _kill(pid: int) -> None:
    """Kill a process that leads its session, and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
