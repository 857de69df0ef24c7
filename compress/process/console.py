"""Console on standard error: a progress bar on a terminal, plain lines in a file, and a log file."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL_S = 15.0  # between two lines of progress if standard error is no terminal


class Pace:
    """Time left of work, from the time of its units so far. `topic`: the work's name up to its first comma."""

    def __init__(self) -> None:
        self.topic = ""
        self.first = 0
        self._started = time.monotonic()

    def left_s(self, what: str, done: int, total: int) -> float:
        """Return the expected seconds until `total` units of `what` are done; another topic is other work."""
        topic = what.partition(",")[0]
        if topic != self.topic:
            self.topic, self.first, self._started = topic, done - 1, time.monotonic()  # resumed work starts above 0
        return (time.monotonic() - self._started) / max(done - self.first, 1) * (total - done)


class Terminal:
    """Implements runtimes.console.Console; use it as a context manager, which removes the progress bar at the end."""

    def __init__(self, log_file: Path | None = None, quiet: bool = False) -> None:
        """Write messages to `log_file` too, if given. quiet: show nothing."""
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self._log_file, self._quiet = log_file, quiet
        self._handler: logging.Handler | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._pace = Pace()
        self._last_line = time.monotonic()

    def __enter__(self) -> Terminal:
        """Redirect warnings of libraries to the log, away from the progress bar."""
        if self._log_file is not None:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            self._handler = logging.FileHandler(self._log_file)
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
            self._handler.setLevel(logging.WARNING)
            logging.getLogger().addHandler(self._handler)
            logging.captureWarnings(True)
        elif self._quiet:
            self._handler = logging.NullHandler()
            logging.getLogger().addHandler(self._handler)
            logging.captureWarnings(True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove_bar()
        if self._handler is not None:
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(self._handler)
            self._handler.close()

    def say(self, line: str) -> None:
        """Print one line and add it to the log."""
        self.console.print(line, markup=False, emoji=False, soft_wrap=True)
        self.log(line)

    def log(self, line: str) -> None:
        """Add one line to the log only."""
        if self._log_file is not None:
            with self._log_file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")

    def progress(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` units are done; a new `what`, up to its first comma, starts a new bar."""
        before = self._pace.topic
        left_s = self._pace.left_s(what, done, total)
        if self._pace.topic != before:
            self._remove_bar()
            self._last_line = time.monotonic()
        if self.console.is_terminal:
            self._draw(what, done, total)
        elif time.monotonic() - self._last_line > PLAIN_INTERVAL_S:
            self._last_line = time.monotonic()
            self.console.print(
                f"{what}: {done}/{total}, about {left_s:.0f} s left", markup=False, emoji=False, soft_wrap=True
            )
        if done >= total:
            self._remove_bar()
            self._pace = Pace()

    def _draw(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TaskProgressColumn(),
                       TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn())  # fmt: skip
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task(what, total=total)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=done, description=what)

    def _remove_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
