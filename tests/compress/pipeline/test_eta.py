"""The time left of the whole run."""

from __future__ import annotations

from pathlib import Path

import pytest
from consoles import RecordingConsole

from compress.pipeline import eta
from compress.pipeline.eta import RunConsole

EXPECTED = {"network": 5.0, "0-train": 100.0, "int8": 60.0}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the time, which tests change."""
    clock = [100.0]
    monkeypatch.setattr(eta.time, "monotonic", lambda: clock[0])  # that of compress.process.console, too
    return clock


def test_a_training_follows_its_pace_and_later_steps_their_estimates(now: list[float]) -> None:
    finished = {"network": Path("x")}
    console = RunConsole(RecordingConsole(), EXPECTED, finished)
    console.left_s("0-train, epoch 1/2", 1, 20)
    now[0] += 40
    assert console.left_s("0-train, epoch 1/2", 2, 20) == pytest.approx(60 + 20 * 18)


def test_a_part_of_a_step_does_not_end_the_step(now: list[float]) -> None:
    console = RunConsole(RecordingConsole(), EXPECTED, {"network": Path("x")})
    console.left_s("run the teacher", 1, 4)
    now[0] += 30
    assert console.left_s("run the teacher", 4, 4) == pytest.approx(60 + 100 - 30)


def test_finished_steps_no_longer_count(now: list[float]) -> None:
    finished = dict.fromkeys(EXPECTED, Path("x"))
    console = RunConsole(RecordingConsole(), EXPECTED, finished)
    assert console.left_s("write", 3, 3) == 0
    del finished["int8"]
    assert console.left_s("calibrate", 1, 1) == 60


def test_the_time_left_of_the_run_stands_beside_the_work(now: list[float]) -> None:
    shown = RecordingConsole()
    console = RunConsole(shown, EXPECTED, {})
    console.progress("check images", 1, 4)
    console.say("a line")
    assert shown.events == [("check images, run ETA 3 min", 1, 4)]
    assert shown.said == ["a line"]
