"""Handlers for SIGINT (Ctrl-C) and SIGTERM (schedulers): exit with one line, or stop training after a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from runtimes.errors import CompressError

REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Exit on SIGINT and SIGTERM with one line and the code 128 + signal, as shells report it.

    The signal raises SystemExit inside the block, so that temporary files are removed. Follow-up errors of libraries
    are hidden (torch's exporter prints a page). Signals that were ignored before, as by nohup, stay ignored. Under
    torchrun SIGTERM keeps its default action, because a process waiting in C++ would never run a Python handler.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        sys.exit(128 + number)

    for number in REASONS:
        under_torchrun = number == signal.SIGTERM and "MASTER_ADDR" in os.environ
        if signal.getsignal(number) != signal.SIG_IGN and not under_torchrun:
            signal.signal(number, stop)
    try:
        yield
    finally:
        if received:
            reason = REASONS[signal.Signals(received[0])]
            advice = "run the same command again to resume after the last finished epoch or step"
            print(f"compress: {reason}; {advice}", file=sys.stderr)
            sys.exit(128 + received[0])


class TerminatedError(CompressError):
    """The process received SIGTERM and has saved its state."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def sigterm_flag() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM has arrived; inside the block SIGTERM does nothing else.

    Signal handlers need the main thread: in other threads the function always returns False.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return

    def request(number: int, frame: FrameType | None) -> None:
        requested.set()

    before = signal.signal(signal.SIGTERM, request)
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
