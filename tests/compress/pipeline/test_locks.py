"""Locks between processes: held by one, given back by its end, inherited by no child."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
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
    RunFolder(folder, "mine", fresh=False)._held.close()
    other = holder(folder / "lock")
    try:
        wanted = f"process {other.pid} on {platform.node()} works in it; wait for that, stop it, or choose another"
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


def test_runs_with_one_cache_make_a_step_once(tmp_path: Path) -> None:
    made: list[Path] = []
    folders = [RunFolder(tmp_path / name, name, fresh=False, cache=tmp_path / "cache") for name in ("a", "b")]
    steps = {folder.step("train", [1], (), made.append) for folder in folders}
    assert len(made) == 1
    assert steps == {made[0]}
    assert made[0].parent == tmp_path / "cache" / "steps"
    assert folders[1].durations_s().keys() == {"train"}


def test_a_step_that_another_process_makes_is_waited_for_with_one_open_file(tmp_path: Path) -> None:
    ours = RunFolder(tmp_path / "a", "a", fresh=False, cache=tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):  # leaves the step undone
        ours.step("train", [1], (), lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
    (step,) = (tmp_path / "cache/steps").iterdir()
    other = holder(step / "lock")
    before, opened = len(os.listdir("/proc/self/fd")), []

    def finish() -> None:
        opened.append(len(os.listdir("/proc/self/fd")))
        (step / "done.json").write_text('{"duration_s": 2.5}')
        end(other)

    made: list[Path] = []
    threading.Timer(1.5, finish).start()
    ours.step("train", [1], (), made.append)
    assert made == []  # the other's result was taken
    assert opened[0] <= before + 2  # the lock, and the listing itself
