"""Run a sweep: every trial is a run of the recipe with other settings."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError

from compress.recipe import errors as recipe_errors
from compress.recipe import named_data, own_code, shipped, strict_yaml
from compress.recipe import recipe as recipes
from compress.recipe.recipe import Recipe
from compress.recipe.renamed import RenamedKeyWarning
from compress.report import report
from compress.report.report import Report, Row
from compress.sweep import results, study
from compress.sweep.config import Objective, Range, Sweep
from compress.sweep.results import Trial
from compress.verdict import statistics
from compress.verdict.checks import EXIT_CODES
from compress.verdict.metrics import Metric
from compress.verdict.statistics import Estimate
from runtimes.console import Console
from runtimes.errors import CompressError, InputError
from runtimes.measure import Measurement

if TYPE_CHECKING:
    import optuna

ERROR = "compress: "  # starts the line of an error of the command line
POLL_S = 0.5  # between two looks at the log of a trial


def load(path: Path) -> Sweep:
    """Read a sweep file and validate it and the recipe with each value; raises InputError, one line per problem."""
    content = strict_yaml.read(path, "sweeps")
    try:
        sweep = Sweep.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in recipe_errors.lines(error, Sweep, content))) from None
    problems: list[str] = []
    renamed: dict[str, Warning | str] = {}  # each warning once, not once per value
    for key, values in sweep.vary.items():
        for value in values if isinstance(values, list) else [values.low, values.high]:
            text = study.yaml_text(value)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", RenamedKeyWarning)
                try:
                    recipe = recipes.load(_recipe_file(path, sweep), [f"{key}={text}"])
                except InputError as error:
                    problems += [f"{path}: vary.{key}: {text}: {line}" for line in str(error).splitlines()]
            renamed |= {str(warning.message): warning.message for warning in caught}
    for message in renamed.values():
        warnings.warn(message, stacklevel=2)
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    if "objectives" not in content and recipe.gate:
        sweep = sweep.model_copy(update={"objectives": (recipe.gate.metric, "latency_ms_p50")})
    names = [target.name for target in recipe.targets]
    if sweep.target not in (None, *names):
        raise InputError(f"{path}: target: the recipe has no '{sweep.target}'; it has {', '.join(names)}")
    return sweep


def run(path: Path, sweep: Sweep, out: Path, storage: str | None, console: Console) -> list[Trial]:
    """Run the remaining trials, together with other processes on the same sweep, and write the results to `out`.

    storage: URL of a database for Optuna that all machines reach; a file in `out` by default. Raises InputError if the
    recipe changes meanwhile, CompressError if all trials fail.
    """
    study.require_optuna()
    recipe_file = _recipe_file(path, sweep)
    # Optuna calls heartbeats experimental; `load` has shown the warnings about the recipe.
    with warnings.catch_warnings(action="ignore"):
        recipe = _base_recipe(recipe_file, sweep)
        search = _Search(recipe_file, recipe.name, sweep, out, console)
        name = study.name_of(path.stem, sweep, recipe, _images(recipe, storage))
        shared = study.open_study(name, sweep, out, storage, console)
        study.enqueue_interrupted(shared)
        while not study.nothing_to_start(shared, sweep) or study.wait_for_others(shared, console):
            if _base_recipe(recipe_file, sweep) != recipe:
                raise InputError(f"{recipe_file}: the recipe changed while the sweep was running; "
                                 "run the same command again to start with the new recipe")  # fmt: skip
            shared.optimize(search.run_trial, n_trials=1, catch=(CompressError,))
    trials = _finished(shared, sweep)
    if not any(trial.values for trial in trials):
        raise CompressError(f"{out}: all trials failed; the first: {trials[0].why}")
    results.write(path.stem, trials, sweep, out)
    return trials


def _images(recipe: Recipe, storage: str | None) -> str:
    """Return what identifies the images of a recipe.

    With a shared database that is their names and labels only: copies on other machines have other modification times.
    """
    data = named_data.load_config(recipe.data)
    return str(data.fingerprint() if storage is None else json.dumps(data.splits_json()))


@dataclass(frozen=True)
class _Search:
    """One sweep in one process. out: folder of the sweep."""

    recipe_file: Path
    recipe_name: str
    sweep: Sweep
    out: Path
    console: Console

    def run_trial(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Run the recipe with the trial's settings and return the objectives; raises CompressError if that fails."""
        study.mark_owner(trial)
        if self.sweep.method != "grid":
            trial.study.sampler = study.sampler(self.sweep, trial.number)
        settings = study.suggest(trial, self.sweep)
        text = ", ".join(f"{key}={value}" for key, value in settings.items())
        progress = f"{study.complete_count(trial.study)} of {self.sweep.count()} done"
        self.console.say(f"trial {trial.number}, {progress}: {text}")
        # Named by the settings, so that any process can resume an interrupted trial. A run folder belongs to the
        # recipes of one name.
        content = json.dumps([self.recipe_name, settings])
        folder = self.out / "trials" / hashlib.sha256(content.encode()).hexdigest()[:12]
        try:
            show = partial(self._show, trial.number)
            _run_recipe(self.recipe_file, settings, folder, self.out / "cache", show)
            values, test_metric = _objectives(self.sweep, report.read(folder))
        except CompressError as error:
            trial.set_user_attr("why", str(error))
            self.console.say(f"trial {trial.number} failed: {error}")
            raise
        trial.set_user_attr("test_metric", test_metric)
        trial.set_user_attr("recipe", (folder / "recipe.yaml").read_text("utf-8"))
        trial.set_user_attr("bounds", {name: (value.low, value.high) for name, value in values.items()})
        figures = (f"{results.HEADINGS[name]} {results.with_interval(name, value)}" for name, value in values.items())
        self.console.say(f"trial {trial.number}: {', '.join(figures)}")
        return tuple(value.value for value in values.values())

    def _show(self, number: int, line: str) -> None:
        """Show a line of a trial's run; its error follows when the trial has failed."""
        if not line.startswith(ERROR):
            self.console.say(f"trial {number}: {line}")


def _recipe_file(path: Path, sweep: Sweep) -> Path:
    """Return the recipe of the sweep file `path`."""
    return shipped.find(sweep.recipe, shipped.recipes(), path.parent)


def _base_recipe(recipe_file: Path, sweep: Sweep) -> Recipe:
    """Return the resolved recipe with the first value of the first varied setting, which `load` has validated.

    The recipe alone may be invalid: a setting without a default may be among the varied ones.
    """
    key, values = next(iter(sweep.vary.items()))
    first = values[0] if isinstance(values, list) else values.low
    return recipes.load(recipe_file, [f"{key}={study.yaml_text(first)}"])


def _run_recipe(
    recipe_file: Path, settings: dict[str, str], folder: Path, cache: Path, show: Callable[[str], None]
) -> None:
    """Run the recipe in a new process with a log beside the folder; any verdict of a gate counts as success.

    show: called with each line of the log, while the process runs.
    """
    command = [sys.executable, "-m", "compress", "run", str(recipe_file), "--out", str(folder), "--cache", str(cache)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    for file in own_code.files():
        command += ["--code", str(file.path)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    # A file instead of a pipe: if this process is killed, the run goes on. Its table is in the folder's report.md.
    with log.open("ab") as stream:
        start = stream.tell()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream)
    try:
        code = _follow(process, log, start, show)
    finally:
        process.kill()  # after an interruption
        process.wait()
    if code not in EXIT_CODES.values():
        lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.startswith(ERROR)]
        raise CompressError(f"{lines[-1].removeprefix(ERROR) if lines else f'exit code {code}'} (log: {log})")


def _follow(process: subprocess.Popen[bytes], log: Path, start: int, show: Callable[[str], None]) -> int:
    """Show the lines of a process's log from byte `start` on until the process ends; return its exit code."""
    rest = b""
    with log.open("rb") as stream:
        stream.seek(start)
        while True:
            code = process.poll()
            *lines, rest = (rest + stream.read()).split(b"\n")
            for line in lines:
                show(line.decode("utf-8", errors="replace"))
            if code is not None:
                return code
            time.sleep(POLL_S)


def _objectives(sweep: Sweep, content: Report) -> tuple[dict[Objective, Estimate], float | None]:
    """Return the objectives of the target's last artifact with bounds, and its metric on the test split."""
    target = sweep.target or content.targets[0]
    rows = content.rows_of(target)
    if not rows:
        raise CompressError(f"target '{target}' was not measured")
    row = rows[-1]
    measured = content.measurements[content.rows.index(row)]
    figures: dict[Objective, Estimate | None] = {
        **{name: _on_val(row, name) for name in get_args(Metric)},
        "latency_ms_p50": _latency(measured, content.confidence),
        "speedup_p50": row.speedup_p50,
        "size_bytes": Estimate(row.size_bytes, row.size_bytes, row.size_bytes),
    }
    values: dict[Objective, Estimate] = {}
    for name in sweep.objectives:
        value = figures[name]
        if value is None:
            needs = ("a second artifact on the target" if name == "speedup_p50" else "labels in the split val"
                     if name == "top1" else "labelled images of every class in the split val")  # fmt: skip
            raise CompressError(f"the objective {name} needs {needs}, which the recipe does not have")
        values[name] = value
    return values, row.metrics.get(sweep.metric)


def _on_val(row: Row, metric: Metric) -> Estimate | None:
    """Return a metric on val with its bounds; None for a row without it."""
    value = row.val_metrics.get(metric)
    return None if value is None else Estimate(value, *row.val_bounds.get(metric, (value, value)))


def _latency(measured: Measurement, confidence: float) -> Estimate:
    """Return the p50 with the bounds of the median over sessions."""
    sessions = len(measured.timing.blocks_per_session())
    median, p50 = statistics.latency_ms(measured.latency_ms, confidence, sessions), measured.latency_ms_p50
    return Estimate(p50, p50 * median.low / median.value, p50 * median.high / median.value)


def _finished(shared: optuna.Study, sweep: Sweep) -> list[Trial]:
    """Return the finished trials with their place on the Pareto front."""
    finished = study.finished_trials(shared)
    values = {trial.number: _estimates(trial, sweep) for trial in finished if trial.values is not None}
    front = results.pareto_front(values, sweep.objectives)
    return [
        Trial(
            number=trial.number,
            settings={
                key: study.range_text(trial.params[key], choices) if isinstance(choices, Range)
                else str(trial.params[key])
                for key, choices in sweep.vary.items() if key in trial.params
            },
            values=dict(zip(sweep.objectives, values.get(trial.number, ()), strict=False)),
            test_metric=trial.user_attrs.get("test_metric"),
            why=trial.user_attrs.get("why") if trial.number not in values else None,
            on_front=trial.number in front,
            like=front.get(trial.number, ()),
            recipe=trial.user_attrs.get("recipe"),
        )
        for trial in finished
    ]  # fmt: skip


def _estimates(trial: optuna.trial.FrozenTrial, sweep: Sweep) -> list[Estimate]:
    """Return the objectives of a complete trial with their bounds."""
    bounds = trial.user_attrs.get("bounds", {})
    return [
        Estimate(value, *bounds.get(name, (value, value)))
        for name, value in zip(sweep.objectives, trial.values, strict=True)
    ]
