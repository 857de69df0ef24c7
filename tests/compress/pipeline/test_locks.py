"""Locks between processes: held by one, given back by its end, inherited by no child."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compress.pipeline import locks
from compress.pipeline.run_folder import RunFolder
from runtimes.errors import InputError

HOLD = """
import os, sys, time
from pathlib import Path
from compress.pipeline import locks
with locks.held(Path(sys.argv[1])) as got:
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(60)
    print(got, flush=True)
    time.sleep(60)
"""


def holder(path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(path), *arguments]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "True\n"
    return started


def end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_lock_is_held_by_one_process_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    other = holder(path)
    try:
        with locks.held(path) as got:
            assert not got
        assert locks.owner(path) == f"process {other.pid} on {platform.node()}"
    finally:
        end(other)
    with locks.held(path) as got:
        assert got
    assert locks.owner(path) == f"process {os.getpid()} on {platform.node()}"


def test_a_killed_process_holds_nothing_though_its_child_lives(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = holder(path, "with a child")
    try:
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locks.held(path) as got:
            assert got
    finally:
        end(other)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_second_run_on_one_folder_is_refused_with_the_firsts_pid_and_host(tmp_path: Path, fresh: bool) -> None:
    folder = tmp_path / "run"
    RunFolder(folder, "mine", fresh=False)._stack.close()
    other = holder(folder / "lock")
    try:
        wanted = f"process {other.pid} on {platform.node()} works in it; wait for it, stop it, or choose another"
        with pytest.raises(InputError, match=wanted):
            RunFolder(folder, "mine", fresh)
        assert (folder / "run.json").exists()  # nothing was emptied
    finally:
        end(other)
    RunFolder(folder, "mine", fresh)


def test_a_folder_that_holds_only_a_lock_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    end(holder(folder / "lock"))  # killed before it wrote whose folder it is
    assert RunFolder(folder, "mine", fresh=False).path == folder
