from __future__ import annotations

import io
import logging
import re
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from compress.process import console
from compress.process.console import PLAIN_INTERVAL_S, Terminal


class Clock:
    """Stands for time.monotonic; tests turn it on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console.time, "monotonic", clock)
    return clock


def attach(terminal: Terminal, interactive: bool) -> io.StringIO:
    stream = io.StringIO()
    terminal.console = Console(file=stream, force_terminal=interactive, highlight=False, width=100)
    return stream


def test_a_line_goes_to_the_error_stream_and_into_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "deep" / "run.log"
    with Terminal(log) as terminal:
        terminal.say("epoch 1/3: loss 0.5")
        terminal.log("only for the log")
        terminal.say("[bold]not markup[/bold] [0]")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "epoch 1/3: loss 0.5\n[bold]not markup[/bold] [0]\n"
    lines = log.read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ", "", line) for line in lines] == [
        "epoch 1/3: loss 0.5",
        "only for the log",
        "[bold]not markup[/bold] [0]",
    ]


def test_the_log_is_added_to(tmp_path: Path) -> None:
    for line in ("first", "second"):
        with Terminal(tmp_path / "run.log") as terminal:
            terminal.log(line)
    assert [line.split(" ", 1)[1] for line in (tmp_path / "run.log").read_text().splitlines()] == ["first", "second"]


def test_without_a_log_lines_are_only_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    terminal = Terminal()
    stream = attach(terminal, interactive=False)
    terminal.say("hello")
    assert stream.getvalue() == "hello\n"
    assert list(tmp_path.iterdir()) == []


def test_a_long_line_is_not_broken() -> None:
    terminal = Terminal()
    stream = attach(terminal, interactive=False)
    terminal.say("x" * 300)
    assert stream.getvalue() == "x" * 300 + "\n"


def test_a_line_is_shown_as_it_is() -> None:
    terminal = Terminal()
    stream = attach(terminal, interactive=False)
    terminal.say("set aside: /data/:cat:/1.png")
    assert stream.getvalue() == "set aside: /data/:cat:/1.png\n"


def test_in_a_file_progress_is_a_line_now_and_then(clock: Clock) -> None:
    terminal = Terminal()
    stream = attach(terminal, interactive=False)
    for done in range(1, 11):
        clock.now += PLAIN_INTERVAL_S / 2 + 0.1
        terminal.progress("0-train, epoch 1/2", done, 20)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    match = re.fullmatch(r"0-train, epoch 1/2: (\d+)/20, about (\d+) s left", lines[-1])
    assert match
    done, remaining = map(int, match.groups())
    assert remaining == pytest.approx((20 - done) * 7.6, rel=0.2)


def test_in_a_file_short_work_says_nothing(clock: Clock) -> None:
    terminal = Terminal()
    stream = attach(terminal, interactive=False)
    for done in range(1, 11):
        clock.now += 0.1
        terminal.progress("check images", done, 10)
    assert stream.getvalue() == ""


def test_the_time_left_starts_anew_with_new_work(clock: Clock) -> None:
    terminal = Terminal()
    stream = attach(terminal, interactive=False)
    terminal.progress("first", 1, 2)
    clock.now += 1000
    terminal.progress("second", 1, 10)
    clock.now += 20
    terminal.progress("second", 2, 10)
    assert stream.getvalue() == "second: 2/10, about 80 s left\n"


def test_the_time_left_of_resumed_work_counts_only_this_run(clock: Clock) -> None:
    terminal = Terminal()
    stream = attach(terminal, interactive=False)
    terminal.progress("0-train, epoch 10/20", 1000, 2000)
    clock.now += 100
    terminal.progress("0-train, epoch 11/20", 1100, 2000)
    match = re.fullmatch(r"0-train, epoch 11/20: 1100/2000, about (\d+) s left\n", stream.getvalue())
    assert match
    assert int(match[1]) == pytest.approx(900, rel=0.02)


def test_a_terminal_shows_a_bar_that_goes_away() -> None:
    with Terminal() as terminal:
        stream = attach(terminal, interactive=True)
        terminal.progress("0-train, epoch 1/2", 1, 4)
        terminal.progress("0-train, epoch 2/2", 3, 4)
        assert terminal._bar is not None
        assert len(terminal._bar.tasks) == 1
        assert (terminal._bar.tasks[0].completed, terminal._bar.tasks[0].description) == (3, "0-train, epoch 2/2")
        terminal.progress("0-train, epoch 2/2", 4, 4)
        assert terminal._bar is None
    assert "0-train, epoch 1/2" in stream.getvalue()
    assert "ETA" in stream.getvalue()


def test_new_work_gets_a_new_bar_with_its_own_total() -> None:
    with Terminal() as terminal:
        attach(terminal, interactive=True)
        terminal.progress("check images", 1, 4)
        first = terminal._bar
        terminal.progress("prepare train images", 1, 9)
        assert terminal._bar is not None
        assert terminal._bar is not first
        assert terminal._bar.tasks[0].total == 9


def test_the_bar_is_taken_down_when_work_fails() -> None:
    def fail() -> None:
        with terminal:
            attach(terminal, interactive=True)
            terminal.progress("check images", 1, 4)
            raise KeyboardInterrupt

    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert terminal._bar is None


def test_a_line_said_above_the_bar_is_kept() -> None:
    with Terminal() as terminal:
        stream = attach(terminal, interactive=True)
        terminal.progress("check images", 1, 4)
        terminal.say("set aside: a.png")
        assert terminal._bar is not None
    assert "set aside: a.png" in stream.getvalue()


def test_warnings_of_libraries_go_into_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, library, handlers = tmp_path / "run.log", logging.getLogger("some.library"), logging.getLogger().handlers[:]
    with Terminal(log):
        library.warning("old format")
        library.info("chatter")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("deprecated thing", UserWarning, stacklevel=1)
    library.warning("after the end")
    content = log.read_text()
    assert "some.library WARNING old format" in content
    assert "deprecated thing" in content
    assert "chatter" not in content
    assert "after the end" not in content
    assert capsys.readouterr().err == ""
    assert logging.getLogger().handlers == handlers


def test_python_warns_as_before_after_the_end(tmp_path: Path) -> None:
    with Terminal(tmp_path / "run.log"):
        pass
    with pytest.warns(UserWarning, match="again"):
        warnings.warn("again", UserWarning, stacklevel=1)


def test_a_quiet_terminal_shows_nothing_and_writes_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(tmp_path / "run.log", quiet=True) as terminal:
        terminal.say("one line")
        terminal.progress("work", 1, 2)
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "run.log").read_text().endswith("one line\n")


def test_pace_starts_anew_with_another_topic(clock: Clock) -> None:
    pace = console.Pace()
    assert pace.left_s("a, part 1", 1, 10) == 0
    clock.now += 4
    assert pace.left_s("a, part 2", 2, 10) == 16
    assert pace.left_s("b", 5, 10) == 0
    assert (pace.topic, pace.first) == ("b", 4)
