from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from consoles import RecordingConsole

from compress.pipeline import steps as module
from compress.pipeline.steps import Step, Steps, step_options

CALLS: list[Path] = []


def train(step: Step, lr: float, widths: dict[str, int] | None = None) -> None:
    """A step that counts how often it ran and writes one result."""
    CALLS.append(step.folder)
    (step.folder / "result.txt").write_text(f"lr {lr}")


@step_options(packages=("numpy", "no-such-package"))
def evaluate(step: Step, lr: float) -> None:
    CALLS.append(step.folder)


@pytest.fixture
def new_steps(tmp_path: Path) -> Callable[[], Steps]:
    CALLS.clear()
    return lambda: Steps(tmp_path / "run", RecordingConsole(), lambda stage, epoch, values: None)


@pytest.fixture
def steps(new_steps: Callable[[], Steps]) -> Steps:
    return new_steps()


def test_a_step_runs_once(steps: Steps, tmp_path: Path) -> None:
    first = steps.run(train, "0-train", lr=1)
    assert steps.run(train, "0-train", lr=1) == first
    assert [first] == CALLS
    assert first.parent == tmp_path / "run" / "steps"
    assert (first / "result.txt").read_text() == "lr 1"


def test_a_later_run_finds_the_step(new_steps: Callable[[], Steps]) -> None:
    first = new_steps().run(train, "0-train", lr=1)
    assert new_steps().run(train, "0-train", lr=1) == first
    assert [first] == CALLS


def test_other_arguments_or_another_function_are_another_step(steps: Steps) -> None:
    folders = {steps.run(train, "a", lr=1), steps.run(train, "a", lr=2), steps.run(evaluate, "a", lr=1),
               steps.run(train, "b", lr=1), steps.run(train, "a", lr=1, widths={"x": 1})}  # fmt: skip
    assert len(folders) == len(CALLS) == 5


def test_a_default_is_an_argument_like_any_other(steps: Steps) -> None:
    assert steps.run(train, "a", lr=1) == steps.run(train, "a", 1, widths=None)


def test_the_order_of_keys_does_not_matter(steps: Steps) -> None:
    first = steps.run(train, "a", lr=1, widths={"x": 1, "y": 2})
    assert steps.run(train, "a", widths={"y": 2, "x": 1}, lr=1) == first


def test_an_argument_without_identity_is_an_error(steps: Steps) -> None:
    with pytest.raises(TypeError, match="identity has no rule"):
        steps.run(train, "a", lr=object())  # type: ignore[arg-type]
    assert not CALLS


def test_another_version_of_a_package_is_another_step(
    new_steps: Callable[[], Steps], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_steps().run(evaluate, "a", lr=1)
    versions = {"numpy": "0.1"}
    monkeypatch.setattr(module, "package_versions",
                        lambda names: {name: versions[name] for name in names if name in versions})  # fmt: skip
    assert new_steps().run(evaluate, "a", lr=1) != first


def test_other_code_is_another_step(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    first = steps.run(train, "a", lr=1)
    monkeypatch.setattr(module, "code_digest", lambda: "other")
    assert steps.run(train, "a", lr=1) != first


def test_an_interrupted_step_runs_again_in_its_folder(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            steps.run(train, "a", lr=1)
    assert "a" not in steps.folders
    (CALLS[0] / "state.txt").write_text("epoch 3")
    folder = steps.run(train, "a", lr=1)
    assert [folder, folder] == CALLS
    assert (folder / "state.txt").read_text() == "epoch 3"


def test_a_step_whose_done_json_was_deleted_runs_again(steps: Steps) -> None:
    folder = steps.run(train, "a", lr=1)
    (folder / "done.json").unlink()
    assert steps.run(train, "a", lr=1) == folder
    assert [folder, folder] == CALLS
    assert (folder / "done.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"duration_s": "long"}'])
def test_a_step_with_a_damaged_done_json_runs_again(steps: Steps, content: str) -> None:
    folder = steps.run(train, "a", lr=1)
    (folder / "done.json").write_text(content)
    assert steps.run(train, "a", lr=1) == folder
    assert [folder, folder] == CALLS
    assert steps.durations_s()["a"] >= 0


def test_done_json_holds_what_the_key_was_computed_from(steps: Steps) -> None:
    folder = steps.run(evaluate, "a", lr=1)
    content = json.loads((folder / "done.json").read_text())
    assert (content["step"], content["arguments"]) == ("a", {"lr": 1})
    assert content["function"].endswith("test_steps.evaluate")
    assert list(content["packages"]) == ["numpy"]
    assert content["code"] == module.code_digest()
    assert folder.name == f"a-{content['key'][:12]}"
    assert content["duration_s"] >= 0


def test_a_step_gets_its_folder_its_cache_and_the_console(steps: Steps, tmp_path: Path) -> None:
    seen: list[Step] = []

    def look(step: Step) -> None:
        seen.append(step)

    folder = steps.run(look, "look")
    assert (seen[0].name, seen[0].folder, seen[0].cache) == ("look", folder, tmp_path / "run")
    assert seen[0].console is steps.console


def test_training_curves_are_tracked_under_the_folder_of_the_step(tmp_path: Path) -> None:
    tracked: list[tuple[str, int, dict[str, float]]] = []
    steps = Steps(tmp_path, RecordingConsole(), lambda stage, epoch, values: tracked.append((stage, epoch, values)))

    def fit(step: Step, epochs: int) -> None:
        step.track(epochs, {"loss": 0.5})

    names = [steps.run(fit, "0-train", epochs=epochs).name for epochs in (1, 2)]
    assert tracked == [(names[0], 1, {"loss": 0.5}), (names[1], 2, {"loss": 0.5})]


def test_durations_are_those_of_this_run_in_order(new_steps: Callable[[], Steps]) -> None:
    first, again = new_steps(), new_steps()
    for name in ("b", "a"):
        first.run(train, name, lr=1)
    again.run(train, "a", lr=1)
    assert list(first.durations_s()) == ["b", "a"]
    assert list(again.durations_s()) == ["a"]


def test_runs_with_one_cache_run_a_step_once(tmp_path: Path) -> None:
    CALLS.clear()
    both = [Steps(tmp_path / "cache", RecordingConsole(), lambda stage, epoch, values: None) for _ in range(2)]
    assert {steps.run(train, "0-train", lr=1) for steps in both} == set(CALLS)
    assert len(CALLS) == 1
    assert both[1].durations_s().keys() == {"0-train"}


def test_a_step_that_another_process_runs_is_waited_for_with_one_open_file(
    new_steps: Callable[[], Steps], tmp_path: Path
) -> None:
    folder = new_steps().run(train, "0-train", lr=1)
    (folder / "done.json").unlink()  # as if it still ran
    code = f"""
import sys, time
from pathlib import Path
from compress.pipeline import locks
with locks.held(Path({str(folder / "lock")!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    before, opened = len(os.listdir("/proc/self/fd")), []
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"

        def finish() -> None:
            opened.append(len(os.listdir("/proc/self/fd")))
            (folder / "done.json").write_text('{"duration_s": 2.5}')
            other.stdin.close()

        threading.Timer(1.5, finish).start()
        assert new_steps().run(train, "0-train", lr=1) == folder
    assert len(CALLS) == 1  # the other's result was taken
    assert opened[0] <= before + 6  # two pipes to the other process, the lock, and the listing itself


def test_known_steps_finds_results_and_neither_runs_nor_writes(steps: Steps, tmp_path: Path) -> None:
    first = steps.run(train, "a", lr=1)
    before = sorted(tmp_path.rglob("*"))
    known = module.KnownSteps(tmp_path / "run")
    assert known.run(train, "a", lr=1) == first
    assert not known.run(train, "b", lr=1).exists()
    assert not known.run(train, "c", tmp_path / "no such file").exists()  # type: ignore[arg-type]
    assert known.folders == {"a": first}
    assert list(known.missing) == ["b", "c"]
    assert [first] == CALLS
    assert sorted(tmp_path.rglob("*")) == before
