"""Sweeps: validation, resumed and shared sweeps, changed recipes, and results."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
import sweep_worker
import yaml
from consoles import RecordingConsole
from made_report import one_row
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.pool import NullPool
from sweep_worker import made_run

from compress.recipe import recipe as recipes
from compress.recipe.renamed import RenamedKeyWarning
from compress.sweep import results, search
from compress.sweep import study as study_module
from compress.sweep.config import Sweep
from compress.verdict.statistics import Estimate
from runtimes.console import SilentConsole
from runtimes.errors import CompressError, InputError

ROOT = Path(__file__).parents[3]
SMOKE = ROOT / "recipes" / "smoke.yaml"
GRID = {"stages.0.lr": [0.01, 0.1], "model.width": [0.5, 1.0, 2.0]}


def write_sweep(folder: Path, **changes: Any) -> Path:
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump({"recipe": str(SMOKE), "vary": GRID, **changes}))
    return path


def run_sweep(path: Path, out: Path) -> list[results.Trial]:
    return search.run(path, search.load(path), out, None, SilentConsole())


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Replace the runs of trials by made-up ones; return the settings of each run."""
    settings_of_runs: list[dict[str, str]] = []

    def run(recipe: Path, settings: dict[str, str], folder: Path, cache: Path, show: Callable[[str], None]) -> None:
        settings_of_runs.append(settings)
        show("0-train, epoch 1/2: 3/9, about 20 s left")
        show("compress: an error")
        made_run(recipe, settings, folder, cache, show)

    monkeypatch.setattr(search, "_run_recipe", run)
    return settings_of_runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": {}}, "vary: must have at least one item"),
        ({"vary": {"stages.0.lr": []}}, "vary.stages.0.lr: must have at least one item"),
        ({"vary": {"stages.0.lr": {"low": 0.1, "high": 0.2}}}, "a grid needs a list of values"),
        ({"vary": {"stages.0.lr": {"low": 0.2, "high": 0.1}}}, "low must be less than high"),
        ({"vary": {"stages.0.lr": {"low": 0, "high": 1, "log": True}}, "method": "tpe", "trials": 3}, "above 0"),
        ({"method": "tpe"}, "trials: is required for the method tpe"),
        ({"trials": 4}, "trials: a grid runs all combinations"),
        ({"method": "magic"}, "method"),
        ({"objectives": ["beauty"]}, "objectives.0"),
        ({"objectives": ["top1", "top1"]}, "must not contain an objective twice"),
        ({"target": "moon"}, "the recipe has no 'moon'; it has this-cpu"),
        ({"recipe": "missing.yaml"}, "missing.yaml: no such file"),
        ({"vary": {"stages.0.lr": [0.1, -1]}}, "vary.stages.0.lr: -1: "),
        ({"vary": {"stages.7.lr": [0.1]}}, "must be an index from 0 to 0"),
        ({"vary": {"model.widht": [0.5]}}, "widht"),
        ({"vary": {f"a.{index}": list(range(100)) for index in range(3)}}, "1000000 combinations; at most 10000"),
        ({"prune": 1}, "prune"),
    ],
)
def test_an_invalid_sweep_is_an_error_before_any_run(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        search.load(write_sweep(tmp_path, **changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("gate", "changes", "objectives"),
    [
        ({"metric": "macro_f1", "max_size_ratio": 1}, {}, ("macro_f1", "latency_ms_p50")),
        ({"metric": "macro_f1", "max_size_ratio": 1}, {"objectives": ["top1"]}, ("top1",)),
        ({"max_size_ratio": 1}, {}, ("top1", "latency_ms_p50")),
        (None, {}, ("top1", "latency_ms_p50")),
    ],
)
def test_the_first_objective_is_the_metric_of_the_gate(
    tmp_path: Path, gate: dict[str, Any] | None, changes: dict[str, Any], objectives: tuple[str, ...]
) -> None:
    recipe = {**yaml.safe_load(SMOKE.read_text()), "gate": gate}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    sweep = search.load(write_sweep(tmp_path, recipe="r.yaml", **changes))
    assert sweep.objectives == objectives
    assert sweep.metric == objectives[0]


def test_the_progress_of_a_trial_is_shown_with_its_number(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    path, console = write_sweep(tmp_path), RecordingConsole()
    search.run(path, search.load(path), tmp_path / "out", None, console)
    shown = [line for line in console.said if line.endswith("0-train, epoch 1/2: 3/9, about 20 s left")]
    assert sorted(line.partition(":")[0] for line in shown) == [f"trial {number}" for number in range(len(runs))]
    assert not any("an error" in line for line in console.said)


def test_lines_are_shown_while_a_run_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The run ends only when its first line has been shown.
    code = (f"import sys, time, pathlib; print('first', file=sys.stderr, flush=True)\n"
            f"while not pathlib.Path({str(tmp_path / 'seen')!r}).exists(): time.sleep(0.01)\n"
            "print('last', end='', file=sys.stderr)")  # fmt: skip
    popen = subprocess.Popen
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: popen([sys.executable, "-c", code], **options))
    shown: list[str] = []

    def show(line: str) -> None:
        shown.append(line)
        (tmp_path / "seen").touch()

    search._run_recipe(tmp_path / "r.yaml", {}, tmp_path / "trial", tmp_path / "cache", show)
    assert shown == ["first"]  # the last line has no end and may be half a line


def test_the_metric_is_that_of_val_and_beside_it_that_of_the_test_split() -> None:
    report = one_row("pi", 0.8, 2.5, 1000)
    row = replace(
        report.rows[0],
        val_metrics={"macro_f1": 0.6},
        val_bounds={"macro_f1": (0.5, 0.7)},
        metrics={"top1": 0.9, "macro_f1": 0.55},
    )
    sweep = Sweep.model_validate({"recipe": "r.yaml", "vary": GRID, "objectives": ["macro_f1"]})
    assert search._objectives(sweep, replace(report, rows=(row,))) == ({"macro_f1": Estimate(0.6, 0.5, 0.7)}, 0.55)


def test_a_grid_runs_each_combination_once_and_writes_the_front(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    trials = run_sweep(write_sweep(tmp_path), tmp_path / "out")
    combinations = [(str(lr), str(width)) for lr, width in product(*GRID.values())]
    assert sorted((run["stages.0.lr"], run["model.width"]) for run in runs) == sorted(combinations)
    front = {(trial.settings["stages.0.lr"], trial.settings["model.width"]) for trial in trials if trial.on_front}
    assert front == {("0.01", "0.5"), ("0.01", "1.0"), ("0.01", "2.0")}
    recipes_of_front = [path.read_text() for path in (tmp_path / "out/front").glob("*.yaml")]
    assert len(recipes_of_front) == 3
    assert all('"stages.0.lr": "0.01"' in text for text in recipes_of_front)
    content = json.loads((tmp_path / "out/sweep.json").read_text())
    assert len(content["trials"]) == 6
    text = (tmp_path / "out/sweep.md").read_text()
    assert text.count("\n| ") == 2 + 6
    assert "front.svg" in text


def test_a_finished_sweep_runs_nothing_more(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    first = run_sweep(write_sweep(tmp_path), tmp_path / "out")
    runs.clear()
    assert run_sweep(write_sweep(tmp_path), tmp_path / "out") == first
    assert runs == []


def test_more_values_reuse_the_folders_of_earlier_trials(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    run_sweep(write_sweep(tmp_path), tmp_path / "out")
    folders = set((tmp_path / "out/trials").iterdir())
    run_sweep(write_sweep(tmp_path, vary={**GRID, "model.width": [0.5, 1.0, 2.0, 4.0]}), tmp_path / "out")
    assert folders < set((tmp_path / "out/trials").iterdir())
    assert len(list((tmp_path / "out/trials").iterdir())) == 8


def test_a_failed_trial_is_reported_and_run_again_by_the_same_command(
    tmp_path: Path, runs: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep(tmp_path, vary={**GRID, "stages.0.lr": [0.01, 0.5]})
    trials = run_sweep(path, tmp_path / "out")
    failed = [trial for trial in trials if not trial.values]
    assert {trial.why for trial in failed} == {"stages.0: the loss is NaN"}
    assert len(failed) == 3
    assert [row[3] for row in results.table("try", trials, search.load(path)).rows].count("failed") == 3
    runs.clear()
    assert len(run_sweep(path, tmp_path / "out")) == 6
    assert [run["stages.0.lr"] for run in runs] == ["0.5"] * 3


def test_if_all_trials_fail_the_error_has_the_reason(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    with pytest.raises(CompressError, match=r"all trials failed; the first: stages\.0: the loss is NaN"):
        run_sweep(write_sweep(tmp_path, vary={**GRID, "stages.0.lr": [0.5]}), tmp_path / "out")


def test_a_search_samples_ranges_and_is_repeatable(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    ranges = {"stages.0.lr": {"low": 0.001, "high": 0.1, "log": True}, "model.width": {"low": 1, "high": 4}}
    for name in ("first", "second"):
        run_sweep(write_sweep(tmp_path, vary=ranges, method="tpe", trials=12, objectives=["top1"]), tmp_path / name)
    assert runs[:12] == runs[12:]
    assert len({run["stages.0.lr"] for run in runs[:12]}) == 12
    assert all(0.001 <= float(run["stages.0.lr"]) <= 0.1 for run in runs)
    assert {int(run["model.width"]) for run in runs} <= set(range(1, 5))


def test_a_single_objective_has_one_best(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    trials = run_sweep(write_sweep(tmp_path, objectives=["top1"]), tmp_path / "out")
    (best,) = [trial for trial in trials if trial.on_front]
    assert best.settings == {"stages.0.lr": "0.01", "model.width": "2.0"}


def small_recipe(folder: Path, **stage: Any) -> Path:
    """Write the smoke recipe, with changes of its first stage, beside the sweep file."""
    content = yaml.safe_load(SMOKE.read_text())
    content["stages"][0] |= stage
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_after_an_edit_of_the_recipe_all_trials_run_again_and_the_results_hold_only_them(
    tmp_path: Path, runs: list[dict[str, str]]
) -> None:
    path, out = write_sweep(tmp_path, recipe="small.yaml"), tmp_path / "out"
    small_recipe(tmp_path)
    first = run_sweep(path, out)
    runs.clear()
    small_recipe(tmp_path, epochs=9)
    console = RecordingConsole()
    second = search.run(path, search.load(path), out, None, console)
    assert len(runs) == 6
    assert console.said[0] == (
        "the recipe, its files or the toolkit changed: 6 earlier trials are kept in the database but not used"
    )
    assert len(second) == len(json.loads((out / "sweep.json").read_text())["trials"]) == 6
    runs.clear()
    console = RecordingConsole()
    assert search.run(path, search.load(path), out, None, console) == second
    small_recipe(tmp_path)  # the earlier content again
    assert search.run(path, search.load(path), out, None, console) == first
    assert (runs, console.said) == ([], [])


@pytest.mark.parametrize("changes", [{"seed": 1}, {"objectives": ["top1"]}, {"vary": {**GRID, "seed": [1]}}])
def test_after_an_edit_of_the_sweep_all_trials_run_again(
    tmp_path: Path, runs: list[dict[str, str]], changes: dict[str, Any]
) -> None:
    run_sweep(write_sweep(tmp_path), tmp_path / "out")
    runs.clear()
    assert len(run_sweep(write_sweep(tmp_path, **changes), tmp_path / "out")) == len(runs) == 6


def test_a_recipe_of_another_name_has_its_own_trial_folders(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    """A run folder refuses recipes of another name."""
    small_recipe(tmp_path).rename(tmp_path / "other.yaml")
    small_recipe(tmp_path)
    for name in ("small", "other"):
        run_sweep(write_sweep(tmp_path, recipe=f"{name}.yaml"), tmp_path / "out")
    assert len(list((tmp_path / "out/trials").iterdir())) == len(runs) == 12


def test_more_trials_continue_a_search(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    vary = {**GRID, "stages.0.lr": {"low": 0.001, "high": 0.1, "log": True}}
    first = run_sweep(write_sweep(tmp_path, vary=vary, method="random", trials=3), tmp_path / "out")
    console = RecordingConsole()
    path = write_sweep(tmp_path, vary=vary, method="random", trials=5)
    trials = search.run(path, search.load(path), tmp_path / "out", None, console)
    assert len(runs) == len(trials) == 5
    assert [trial.settings for trial in trials[:3]] == [trial.settings for trial in first]
    assert not any("changed" in line for line in console.said)


def test_a_recipe_that_changes_while_the_sweep_runs_ends_it(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    path = write_sweep(tmp_path, recipe="small.yaml")
    small_recipe(tmp_path)

    def edit(line: str) -> None:
        if line.startswith("trial 1,"):
            small_recipe(tmp_path, epochs=9)

    with pytest.raises(InputError, match=r"small\.yaml: the recipe changed while the sweep was running; run the same"):
        search.run(path, search.load(path), tmp_path / "out", None, RecordingConsole(on_say=edit))
    assert len(runs) == 2
    assert len(run_sweep(path, tmp_path / "out")) == 6


def test_a_recipe_that_is_valid_only_with_the_varied_value_can_be_swept(tmp_path: Path) -> None:
    content = yaml.safe_load(SMOKE.read_text())
    del content["model"]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    model = yaml.safe_load(SMOKE.read_text())["model"]
    path = write_sweep(tmp_path, recipe="small.yaml", vary={"model": [model]})
    with pytest.raises(InputError, match="model"):
        recipes.load(tmp_path / "small.yaml")
    search.load(path)
    assert search._base_recipe(tmp_path / "small.yaml", search.load(path)).model.arch == model["arch"]


def test_an_old_name_of_a_key_is_a_warning_once_and_not_per_value(tmp_path: Path) -> None:
    recipe = yaml.safe_load(SMOKE.read_text())
    recipe["quantize"]["engine"] = recipe["quantize"].pop("method", "compress")
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.warns(RenamedKeyWarning, match="'engine' is now called 'method'") as warnings:
        search.load(write_sweep(tmp_path, recipe="old.yaml"))
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, {"top1": 0.8, "latency_ms_p50": 2.5}),
        ({"objectives": ["size_bytes"]}, {"size_bytes": 1000.0}),
        ({"target": "pi"}, {"top1": 0.8, "latency_ms_p50": 2.5}),
    ],
)
def test_the_objectives_are_those_of_the_target(
    tmp_path: Path, changes: dict[str, Any], values: dict[str, float]
) -> None:
    sweep = Sweep.model_validate({"recipe": "r.yaml", "vary": GRID, **changes})
    report = one_row("pi", 0.8, 2.5, 1000)
    found, test_metric = search._objectives(sweep, report)
    assert ({name: value.value for name, value in found.items()}, test_metric) == (values, report.rows[0].top1)
    assert all(value.low <= value.value <= value.high for value in found.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "nano"}, "target 'nano' was not measured"),
        (
            {"objectives": ["speedup_p50"]},
            "speedup_p50 needs a second artifact on the target, which the recipe does not",
        ),
        ({"objectives": ["top1"]}, "top1 needs labels in the split val, which the recipe does not have"),
        ({"objectives": ["macro_f1"]}, "macro_f1 needs labelled images of every class in the split val, which"),
    ],
)
def test_an_objective_without_a_value_is_an_error(changes: dict[str, Any], message: str) -> None:
    report = one_row("pi", 0.8, 2.5, 1000)
    report = replace(report, rows=(replace(report.rows[0], val_metrics={}),))
    with pytest.raises(CompressError, match=message):
        search._objectives(Sweep.model_validate({"recipe": "r.yaml", "vary": GRID, **changes}), report)


def test_a_run_that_fails_is_an_error_with_the_last_line_of_its_log(tmp_path: Path) -> None:
    shown: list[str] = []
    (tmp_path / "trial.log").write_text("compress: an earlier attempt\n")
    with pytest.raises(CompressError, match=r"missing\.yaml: no such file.* \(log: .*trial\.log\)"):
        search._run_recipe(
            tmp_path / "missing.yaml", {"seed": "1"}, tmp_path / "trial", tmp_path / "cache", shown.append
        )
    assert "no such file" in (tmp_path / "trial.log").read_text()
    assert (tmp_path / "trial.log").read_text().splitlines()[1:] == shown  # without the line of an earlier attempt


@pytest.mark.parametrize(
    ("code", "is_failure"), [(0, False), (1, True), (2, True), (3, False), (4, False), (137, True)]
)
def test_a_verdict_of_the_gate_is_not_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_failure: bool
) -> None:
    popen = subprocess.Popen
    exits = [sys.executable, "-c", f"raise SystemExit({code})"]
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: popen(exits, **options))
    expectation = pytest.raises(CompressError, match=f"exit code {code}") if is_failure else contextlib.nullcontext()
    with expectation:
        search._run_recipe(tmp_path / "r.yaml", {}, tmp_path / "trial", tmp_path / "cache", print)


def test_trials_get_the_files_of_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: Callable[..., Path]
) -> None:
    path, popen, commands = code("def build(num_classes): pass"), subprocess.Popen, []

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        commands.append(command)
        return popen([sys.executable, "-c", ""], **options)

    monkeypatch.setattr("subprocess.Popen", start)
    search._run_recipe(tmp_path / "r.yaml", {"seed": "1"}, tmp_path / "trial", tmp_path / "cache", print)
    assert commands[0][-2:] == ["--code", str(path)]


def worker(path: Path, out: Path, pause_s: float = 0.15) -> subprocess.Popen[str]:
    command = [sys.executable, sweep_worker.__file__, str(path), str(out), str(pause_s)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_a_sweep_and_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    path, out = write_sweep(tmp_path, vary={**GRID, "model.width": [0.5, 1.0, 2.0, 3.0, 4.0]}), tmp_path / "out"
    killed = worker(path, out)
    assert killed.stdout is not None
    assert any(" 1 of 10 done" in line for line in killed.stdout)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    both = [worker(path, out), worker(path, out)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("val %" in output for output in outputs)  # each ran some of the trials
    trials = json.loads((out / "sweep.json").read_text())["trials"]
    assert all(trial["values"] for trial in trials)
    settings = [json.dumps(trial["settings"]) for trial in trials]
    assert len(set(settings)) == len(settings) == 10


def test_a_trial_that_two_processes_requeue_at_once_runs_once(
    tmp_path: Path, runs: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write_sweep(tmp_path), tmp_path / "out"
    killed = worker(path, out, pause_s=3600)  # the kill comes during its first trial
    assert killed.stdout is not None
    assert any(line.startswith("trial 0,") for line in killed.stdout)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    faster: list[int] = []

    def between(self: object, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: object) -> None:
        if state == TrialState.FAIL and not faster:
            faster.append(trial.number)
            # without a pool, which would leave its connections open
            other = RDBStorage(f"sqlite:///{out / 'sweep.db'}", engine_kwargs={"poolclass": NullPool})
            optuna.load_study(study_name=study.study_name, storage=other).tell(trial.number, state=state)

    make_sampler = study_module._grid_sampler

    def grid_sampler(settings: Sweep, seed: int) -> optuna.samplers.BaseSampler:
        made = make_sampler(settings, seed)
        monkeypatch.setattr(type(made), "after_trial", between)
        return made

    monkeypatch.setattr(study_module, "_grid_sampler", grid_sampler)
    trials = run_sweep(path, out)
    assert len(faster) == 1
    assert len({json.dumps(run) for run in runs}) == len(runs)
    assert len({json.dumps(trial.settings) for trial in trials if trial.values}) == len(trials) == 6


@pytest.mark.slow  # a minute
def test_real_runs_share_their_steps(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, vary={"quantize.calibration_images": [8, 16]})
    recipe = yaml.safe_load(SMOKE.read_text())
    recipe |= {"timing": {"warmup": 1, "blocks": 2, "runs_per_block": 1, "sessions": 1}}
    recipe["stages"][0] |= {"epochs": 1, "warmup_epochs": 0}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(recipe))
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "recipe": "quick.yaml"}))
    command = [sys.executable, "-m", "compress", "sweep", str(path), "--out", str(tmp_path / "out")]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "try: grid, 2 trials" in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 80 or str(tmp_path) in process.stdout
    assert len(list((tmp_path / "out/cache/steps").glob("0-train-*"))) == 1
    assert len(list((tmp_path / "out/cache/steps").glob("int8-*"))) == 2
    assert len(list((tmp_path / "out/trials").glob("*/report.html"))) == 2


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_sweep_fits_its_recipe(path: Path) -> None:
    assert search.load(path).count() > 1
