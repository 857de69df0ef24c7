"""SIGTERM, by which schedulers take a machine back: training ends at its next step, with its state written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from runtimes.errors import CompressError


class TerminatedError(CompressError):
    """The process was asked to end, and what it had done is written."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether the process was asked to end; outside it would have ended at once.

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
