"""Ctrl-C, and SIGTERM, by which schedulers take a machine back: one line, and in training its state is written."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from runtimes.errors import CompressError

HOW = {signal.SIGINT: "interrupted", signal.SIGTERM: "asked to end"}  # Ctrl-C and schedulers


@contextmanager
def one_line_when_asked_to_end() -> Iterator[None]:
    """End the block in one line when a signal asks for that, with the exit code that shells report for it.

    It ends as by an exception, so that temporary files are removed; what a library makes of that exception (torch's
    exporter a page of its own) is not shown. Not for what was ignored before, as nohup does; nor for SIGTERM under
    torchrun, whose processes may wait for each other in C++, where no exception arrives.
    """
    asked: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        sys.exit(128 + number)

    for number in HOW:
        under_torchrun = number == signal.SIGTERM and "MASTER_ADDR" in os.environ
        if signal.getsignal(number) != signal.SIG_IGN and not under_torchrun:
            signal.signal(number, end)
    try:
        yield
    finally:
        if asked:
            how = HOW[signal.Signals(asked[0])]
            print(f"compress: {how}; the same command goes on from the last finished epoch or step", file=sys.stderr)
            sys.exit(128 + asked[0])


class TerminatedError(CompressError):
    """The process was asked to end, and what it had done is written."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether the process was asked to end; outside it ends at once.

    Only a process's main thread can do that: in others nobody is asked.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
