"""Signals: one line and the exit code of shells, whatever a library makes of the exception; no temporary files."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ADVICE = "run the same command again to resume after the last finished epoch or step"

# A library that turns every exception into one of its own, as torch's exporter does.
WORK = """
import sys, tempfile, time
from compress.process.signals import exit_on_signals
with exit_on_signals(), tempfile.TemporaryDirectory(dir=sys.argv[1]):
    try:
        print("at work", flush=True)
        time.sleep(60)
    except BaseException as error:
        raise RuntimeError("a page of advice") from error
"""


@pytest.mark.parametrize(
    ("sent", "code", "line"),
    [
        (
            signal.SIGINT,
            130,
            f"compress: interrupted; {ADVICE}",
        ),
        (
            signal.SIGTERM,
            143,
            f"compress: terminated; {ADVICE}",
        ),
    ],
)
def test_a_signal_is_one_line(tmp_path: Path, sent: signal.Signals, code: int, line: str) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(sent)
    _, said = process.communicate()
    assert (process.returncode, said) == (code, f"{line}\n")
    assert list(tmp_path.iterdir()) == []


def test_what_was_ignored_before_stays_ignored(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORK.replace("time.sleep(60)", "time.sleep(1)"), str(tmp_path)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as nohup and & do
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said) == (0, "")
