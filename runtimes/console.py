"""Progress and messages: the interface through which long-running functions report to the user."""

from __future__ import annotations

import io
import sys
from typing import Protocol


class Console(Protocol):
    """Receiver of messages and progress; the host shows them on a terminal."""

    def say(self, line: str) -> None:
        """Show one line."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `what` are done."""


class SilentConsole:
    """Console that shows nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Do nothing."""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 image", "2 images"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def escape_unprintable() -> None:
    """Print characters that the terminal's encoding lacks as escapes instead of failing.

    File names and class names hold any character, and PYTHONIOENCODING or an old locale may allow ASCII only.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
