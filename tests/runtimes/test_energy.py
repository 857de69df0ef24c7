"""Tests of runtimes.energy with counters and sensors in temporary files."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from runtimes import energy
from runtimes.target import Target
from runtimes.telemetry import UNKNOWN

CPU, GPU = Target("cpu"), Target("gpu", provider="cuda")
IMAGES = [np.zeros((1, 3, 2, 2), np.float32)]


class Working:
    """A session that takes 10 ms, and makes the counter say that this took 0.05 J."""

    def __init__(self, counter: Path | None) -> None:
        self._counter, self.calls = counter, 0

    def run(self, images: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        self.calls += 1
        if self._counter:
            self._counter.write_text(str(int(self._counter.read_text()) + 50_000))
        return np.zeros((1, 2), np.float32)

    def close(self) -> None:
        """Hold nothing."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "BUSY_S", 1.0)
    monkeypatch.setattr(energy, "SETTLING_S", 0.1)
    monkeypatch.setattr(energy, "EVERY_S", 0.05)
    monkeypatch.setenv("PATH", "")  # no command of this machine's tells of its own power


def file(root: Path, name: str, text: str) -> Path:
    path = root / "sys/class" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_counter_tells_the_energy_of_a_call(tmp_path: Path) -> None:
    counter = file(tmp_path, "powercap/intel-rapl:0/energy_uj", "1000000")
    file(tmp_path, "powercap/intel-rapl:0/name", "package-0")
    found = energy.per_call_mj(Working(counter), IMAGES, CPU, tmp_path)
    assert found == {"package-0 0": pytest.approx(50, rel=0.01)}


def test_sampled_power_tells_the_energy_of_a_call(tmp_path: Path) -> None:
    file(tmp_path, "hwmon/hwmon0/power1_input", "5000000")
    file(tmp_path, "hwmon/hwmon0/name", "board")
    session = Working(None)
    found = energy.per_call_mj(session, IMAGES, CPU, tmp_path)
    assert isinstance(found, dict)
    assert found["board power1"] == pytest.approx(5000 * 1.0 / session.calls, rel=0.2)


def test_a_counter_that_ran_over_tells_nothing(tmp_path: Path) -> None:
    counter = file(tmp_path, "powercap/intel-rapl:0/energy_uj", "9000000")
    file(tmp_path, "powercap/intel-rapl:0/name", "package-0")
    session = Working(None)
    session.run = lambda images: (counter.write_text("5"), time.sleep(0.01))  # type: ignore[method-assign,assignment,return-value]
    assert energy.per_call_mj(session, IMAGES, CPU, tmp_path) == UNKNOWN


def test_where_nothing_is_shown_it_is_unknown(tmp_path: Path) -> None:
    assert energy.per_call_mj(Working(None), IMAGES, CPU, tmp_path) == UNKNOWN
    assert not energy.can_measure({"energy_j": UNKNOWN, "power_w": UNKNOWN}, CPU)
    assert energy.can_measure({"energy_j": {"package-0": 2.5}, "power_w": UNKNOWN}, CPU)


def test_a_graphics_card_counts_where_the_target_runs_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {"energy_j": UNKNOWN, "power_w": {"gpu": 120.0}}
    assert [energy.can_measure(seen, target) for target in (CPU, GPU)] == [False, True]
    monkeypatch.setattr(energy, "watts_now", lambda root: {"gpu": 120.0})
    assert energy.per_call_mj(Working(None), IMAGES, CPU) == UNKNOWN
    assert isinstance(energy.per_call_mj(Working(None), IMAGES, GPU), dict)
