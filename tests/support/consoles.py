"""Console for tests: keeps every message and progress event."""

from __future__ import annotations

from collections.abc import Callable


class RecordingConsole:
    """Keep lines in `said` and progress in `events`; call the hooks, if given, on each."""

    def __init__(
        self,
        on_say: Callable[[str], None] = lambda line: None,
        on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        self.said: list[str] = []
        self.events: list[tuple[str, int, int]] = []
        self._on_say, self._on_progress = on_say, on_progress

    def say(self, line: str) -> None:
        self.said.append(line)
        self._on_say(line)

    def progress(self, what: str, done: int, total: int) -> None:
        self.events.append((what, done, total))
        self._on_progress(what, done, total)
