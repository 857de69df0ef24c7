"""Studies: their names, the database, samplers, and trials that were interrupted."""

from __future__ import annotations

import os
import platform
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from consoles import RecordingConsole
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.trial import TrialState

from compress.recipe import recipe as recipes
from compress.recipe.recipe import Recipe
from compress.sweep import study
from compress.sweep.config import Range, Sweep
from runtimes.console import SilentConsole
from runtimes.errors import InputError, UnavailableError

ROOT = Path(__file__).parents[3]
GRID = {"stages.0.lr": [0.01, 0.1], "model.width": [0.5, 1.0]}


@pytest.fixture(autouse=True)
def _no_experimental_warnings() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):
        yield


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return recipes.load(ROOT / "recipes/smoke.yaml")


def sweep(**fields: Any) -> Sweep:
    return Sweep.model_validate({"recipe": "r.yaml", "vary": GRID, **fields})


def opened(folder: Path, settings: Sweep, name: str = "try-0123456789ab") -> optuna.Study:
    return study.open_study(name, settings, folder, None, SilentConsole())


def test_the_name_depends_on_what_decides_a_result(recipe: Recipe) -> None:
    search = sweep(method="tpe", trials=10)
    name = study.name_of("try", search, recipe, "")
    assert name.startswith("try-")
    others = [
        study.name_of("try", sweep(method="tpe", trials=10, **fields), recipe, "")
        for fields in (
            {"vary": {**GRID, "model.width": [0.5, 2.0]}}, {"seed": 1}, {"objectives": ["top1"]}, {"target": "other"},
        )
    ]  # fmt: skip
    others.append(study.name_of("try", sweep(method="random", trials=10), recipe, ""))
    others.append(study.name_of("try", search, recipes.load(ROOT / "recipes/smoke.yaml", ["stages.0.epochs=99"]), ""))
    others.append(study.name_of("try", search, recipe, "other images"))
    assert len({name, *others}) == 1 + len(others)


def test_the_name_does_not_depend_on_the_number_of_trials_or_on_how_the_target_is_given(recipe: Recipe) -> None:
    search = sweep(method="tpe", trials=10)
    same = [sweep(method="tpe", trials=20), sweep(method="tpe", trials=10, target=recipe.targets[0].name)]
    same.append(sweep(method="tpe", trials=10, recipe="moved.yaml"))
    assert {study.name_of("try", settings, recipe, "") for settings in same} == {
        study.name_of("try", search, recipe, "")
    }


def test_replaced_weights_and_other_code_are_another_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "start.safetensors"
    recipe = recipes.load(ROOT / "recipes/smoke.yaml", [f"model.weights={weights}"])
    names = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        names.append(study.name_of("try", sweep(), recipe, ""))
    monkeypatch.setattr(study, "code_digest", lambda: "other")
    names.append(study.name_of("try", sweep(), recipe, ""))
    assert len(set(names)) == 3


def test_trials_of_other_studies_of_the_same_file_are_reported_once(tmp_path: Path) -> None:
    earlier = opened(tmp_path, sweep(method="random", trials=3))
    earlier.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.0), n_trials=2)
    for name in ("try-other-0123456789ab", "another-0123456789ab"):  # of other sweep files
        opened(tmp_path, sweep(), name).add_trial(optuna.trial.create_trial(values=[0, 0]))
    said = []
    for name in ("try-0123456789ab", "try-ba9876543210"):
        console = RecordingConsole()
        current = study.open_study(name, sweep(), tmp_path, None, console)
        said.append(console.said)
    assert said[0] == []
    assert said[1] == [
        "the recipe, its files or the toolkit changed: 2 earlier trials are kept in the database but not used"
    ]
    current.add_trial(optuna.trial.create_trial(values=[0, 0]))
    console = RecordingConsole()
    study.open_study("try-ba9876543210", sweep(), tmp_path, None, console)
    assert console.said == []


@pytest.mark.parametrize("storage", ["nonsense", "nosuchdb://host/db", "sqlite:////no/such/folder/x.db"])
def test_a_database_that_cannot_be_opened_is_an_error(tmp_path: Path, storage: str) -> None:
    with pytest.raises(InputError, match=r"cannot be opened.*correct --storage"):
        study.open_study("try", sweep(), tmp_path, storage, SilentConsole())


def test_samplers_of_a_search_differ_by_trial_and_repeat() -> None:
    settings = sweep(method="random", trials=3, vary={"stages.0.lr": {"low": 0.0, "high": 1.0}})

    def first(trial: int) -> str:
        new = optuna.create_study(sampler=study.sampler(settings, trial)).ask()
        return study.suggest(new, settings)["stages.0.lr"]

    assert first(0) == first(0)
    assert len({first(trial) for trial in range(5)}) == 5


def test_suggested_settings_are_yaml_of_the_values() -> None:
    vary = {"a": [None], "b": [True], "c": [[1, 2]], "d": {"low": 3, "high": 4}, "e": [{"k": "v w"}], "f": ["text"]}
    settings = sweep(method="random", trials=1, vary=vary)
    suggested = study.suggest(optuna.create_study(sampler=study.sampler(settings, 0)).ask(), settings)
    assert {key: suggested[key] for key in "abcef"} == {
        "a": "null", "b": "true", "c": "[1, 2]", "e": "{k: v w}", "f": "text"
    }  # fmt: skip
    assert suggested["d"] in ("3", "4")


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e6), share=st.floats(0, 1))
def test_numbers_of_a_range_have_three_digits_and_stay_in_it(low: float, width: float, share: float) -> None:
    assume(low < low + width)
    choices = Range(low=low, high=low + width)
    value = min(low + share * width, low + width)
    text = study.range_text(value, choices)
    rounded = yaml.safe_load(text)
    assert choices.low <= rounded <= choices.high
    assert rounded in (choices.low, choices.high) or abs(rounded - value) <= 0.005 * abs(value)
    assert study.range_text(rounded, choices) == text


def test_a_grid_is_started_when_every_combination_is(tmp_path: Path) -> None:
    current = opened(tmp_path, sweep())
    for started in range(4):
        assert not study.nothing_to_start(current, sweep())
        study.suggest(current.ask(), sweep())
        assert len(current.trials) == started + 1
    assert study.nothing_to_start(current, sweep())


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("host", "pid", "again"),
    [(platform.node(), None, True), (platform.node(), os.getpid(), False), (platform.node(), 1, False),
     ("another-machine", None, False)],
    ids=["ended", "this process", "another process", "another machine"],  # the same in all processes of the tests
)  # fmt: skip
def test_trials_of_dead_processes_of_this_machine_are_enqueued_again(
    tmp_path: Path, host: str, pid: int | None, again: bool
) -> None:
    current = opened(tmp_path, sweep())
    trial = current.ask()
    settings = study.suggest(trial, sweep())
    trial.set_user_attr("by", {"host": host, "pid": pid or ended_process()})
    study.enqueue_interrupted(current)
    waiting = current.get_trials(states=(TrialState.WAITING,))
    assert [trial.system_attrs["fixed_params"] for trial in waiting] == ([settings] if again else [])
    study.enqueue_interrupted(current)
    assert len(current.get_trials(states=(TrialState.WAITING,))) == len(waiting)  # not a second time


def test_failed_trials_that_succeeded_later_are_not_finished_trials(tmp_path: Path) -> None:
    current = opened(tmp_path, sweep())
    failed = current.ask()
    study.suggest(failed, sweep())
    current.tell(failed, state=TrialState.FAIL)
    assert [trial.number for trial in study.finished_trials(current)] == [0]
    study.enqueue_interrupted(current)
    repeated = current.ask()
    assert study.suggest(repeated, sweep()) == failed.params
    current.tell(repeated, [0.5, 1.0])
    assert [(trial.number, trial.values) for trial in study.finished_trials(current)] == [(1, [0.5, 1.0])]
    assert study.complete_count(current) == 1


def test_waiting_for_others_is_reported_once_and_ends_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "WAIT_S", 0.0)
    current, console = opened(tmp_path, sweep()), RecordingConsole()
    assert not study.wait_for_others(current, console)
    assert console.said == []
    trial = current.ask()
    study.suggest(trial, sweep())
    trial.set_user_attr("by", {"host": platform.node(), "pid": ended_process()})
    assert study.wait_for_others(current, console)
    assert console.said == ["waiting for 1 trials of other processes"]


def test_without_optuna_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="pip install optuna"):
        study.require_optuna()


def test_a_grid_of_two_resumes_after_an_interrupted_trial(tmp_path: Path) -> None:
    settings = sweep(vary={"seed": [0, 1]})
    first = opened(tmp_path, settings)
    first.optimize(lambda trial: (float(study.suggest(trial, settings)["seed"]), 0.0), n_trials=1)
    interrupted = first.ask()
    study.suggest(interrupted, settings)
    first.tell(interrupted, state=optuna.trial.TrialState.FAIL)
    again = opened(tmp_path, settings)
    for _ in range(2):  # fails twice more, then ends
        study.enqueue_interrupted(again)
        assert not study.nothing_to_start(again, settings)
        retried = again.ask()
        study.suggest(retried, settings)
        again.tell(retried, state=optuna.trial.TrialState.FAIL)
    study.enqueue_interrupted(again)
    again.optimize(lambda trial: (float(study.suggest(trial, settings)["seed"]), 0.0), n_trials=1)
    assert study.complete_count(again) == 2
    assert study.nothing_to_start(again, settings)
