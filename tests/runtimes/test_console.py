"""Consoles of boards and tests have the interface that long-running functions report to."""

from __future__ import annotations

import io
import sys

import pytest
from consoles import RecordingConsole

from compress.process.console import Terminal
from runtimes.board import ErrorConsole
from runtimes.console import Console, SilentConsole, counted, escape_unprintable


def report(console: Console) -> None:
    """Send one message and one progress event."""
    console.say("one line")
    console.progress("work", 1, 2)


def test_the_silent_console_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report(SilentConsole())
    assert capsys.readouterr() == ("", "")


def test_a_recording_console_keeps_messages_and_progress() -> None:
    console = RecordingConsole()
    report(console)
    assert (console.said, console.events) == (["one line"], [("work", 1, 2)])


@pytest.mark.parametrize("kind", [SilentConsole, ErrorConsole, RecordingConsole, Terminal])
def test_every_console_has_the_interface(kind: type[Console]) -> None:
    for name in ("say", "progress"):
        parameters = getattr(kind, name).__code__.co_varnames[: getattr(kind, name).__code__.co_argcount]
        expected = getattr(Console, name).__code__.co_varnames[: getattr(Console, name).__code__.co_argcount]
        assert parameters == expected


def test_characters_that_the_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", write_through=True))
    with pytest.raises(UnicodeEncodeError):
        print("dög")
    escape_unprintable()
    print("dög", "\udcff")  # the second is a byte of a file name that is not UTF-8
    assert raw.getvalue() == b"d\\xf6g \\udcff\n"


def test_one_of_a_thing_has_no_plural() -> None:
    assert [counted(count, "image") for count in range(3)] == ["0 images", "1 image", "2 images"]
