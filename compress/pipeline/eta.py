"""Show the time left of the whole run beside the progress of a step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from compress.pipeline.duration import in_words
from compress.process.console import Pace
from runtimes.console import Console


class RunConsole:
    """Console that adds the expected time left of the run to each line of progress."""

    def __init__(self, console: Console, expected_s: Mapping[str, float], finished: Mapping[str, Path]) -> None:
        """Show on `console`. expected_s: seconds by step, in order; finished: steps, filled while the run proceeds."""
        self._console, self._expected_s, self._finished = console, expected_s, finished
        self._pace, self._step, self._started = Pace(), "", 0.0

    def say(self, line: str) -> None:
        """Show one line."""
        self._console.say(line)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show progress and the time left of the run."""
        left = in_words(self.left_s(what, done, total)).removeprefix("about ")
        self._console.progress(f"{what}, run ETA {left}", done, total)

    def left_s(self, what: str, done: int, total: int) -> float:
        """Return the expected seconds until the end of the run.

        The rest of a training follows from its pace; other steps also have parts without progress.
        """
        now, at_pace_s = time.monotonic(), self._pace.left_s(what, done, total)
        step, *later = [name for name in self._expected_s if name not in self._finished] or [""]
        if step != self._step:
            self._step, self._started = step, now
        later_s = sum(self._expected_s[name] for name in later)
        if what.partition(",")[0] == step and done > self._pace.first:
            return later_s + at_pace_s
        return later_s + max(at_pace_s, self._expected_s.get(step, 0.0) - (now - self._started))
