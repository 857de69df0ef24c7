"""A recipe with many settings: a grid or a search over its fields, every trial a run, and the Pareto front of them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from compress.recipe import errors as recipe_errors
from compress.recipe import recipe, strict_yaml
from compress.report import report
from compress.sweep import results as sweep_results
from compress.sweep.config import DIRECTIONS, Objective, Range, Sweep
from compress.sweep.results import Trial, heading, shown
from compress.verdict.gate import EXIT_CODES
from runtimes.console import Console
from runtimes.errors import CompressError, InputError, UnavailableError

if TYPE_CHECKING:
    import optuna

HEARTBEAT_S, GRACE_S, WAIT_S = 60, 180, 2.0  # how soon trials of a machine that died are taken over
STARTUP_TRIALS = 5  # drawn at random before the search learns; a fifth of all, where that is more
Scalar = str | int | float | bool


def load(path: Path) -> Sweep:
    """Read a sweep and check it, and the recipe with each value; raises InputError with all problems, a line each."""
    content = strict_yaml.read(path)
    try:
        sweep = Sweep.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in recipe_errors.lines(error, Sweep, content))) from None
    problems: list[str] = []
    for key, values in sweep.vary.items():
        for value in values if isinstance(values, list) else [values.low, values.high]:
            try:
                checked = recipe.load(path.parent / sweep.recipe, [f"{key}={_text(value)}"])
            except InputError as error:
                problems += [f"{path}: vary.{key}: {_text(value)}: {line}" for line in str(error).splitlines()]
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    names = [target.name for target in checked.targets]
    if sweep.target not in (None, *names):
        raise InputError(f"{path}: target: the recipe has no '{sweep.target}'; it has {', '.join(names)}")
    return sweep


def run(path: Path, sweep: Sweep, out: Path, storage: str | None, console: Console) -> list[Trial]:
    """Run what is left of a sweep, with all others that work on it, and write its table, picture and recipes.

    storage: Optuna's address of a database that several machines reach; a file in `out` unless given.
    """
    _require_optuna()
    with warnings.catch_warnings(action="ignore"):  # of heartbeats, which Optuna calls experimental since 2021
        study = _study(sweep, path, out, storage)
        _take_back(study)
        while not _enough(study, sweep) or _others(study, console):
            study.optimize(
                lambda trial: _objectives(trial, path, sweep, out, console), n_trials=1, catch=(CompressError,)
            )
    trials = _trials(study, sweep)
    if not any(trial.values for trial in trials):
        raise CompressError(f"{out}: all trials failed; the first: {trials[0].why}")
    sweep_results.write(trials, sweep, path.stem, out)
    return trials


def _require_optuna() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise UnavailableError("compress sweep needs Optuna: pip install optuna")


def _study(sweep: Sweep, path: Path, out: Path, storage: str | None) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what fails is told in one line
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(sweep.model_dump(mode="json"), sort_keys=True)
    name = f"{path.stem}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    address = storage or f"sqlite:///{out.resolve() / 'sweep.db'}"
    try:
        kept = optuna.storages.RDBStorage(
            address, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S,
            heartbeat_stale_trial_callback=_queue_again,
        )  # fmt: skip
        return optuna.create_study(
            storage=kept, sampler=_sampler(sweep, 0), study_name=name, load_if_exists=True,
            directions=[DIRECTIONS[one] for one in sweep.objectives],
        )  # fmt: skip
    except _database_errors() as error:
        raise InputError(f"{address}: can't be opened ({str(error).splitlines()[0]}); mend --storage") from error


def _sampler(sweep: Sweep, trial: int) -> optuna.samplers.BaseSampler:
    """Return what proposes a trial's settings, seeded by its number: processes that share a study differ."""
    import optuna

    seed = sweep.seed + trial
    if sweep.method == "grid":
        return optuna.samplers.GridSampler(_grid(sweep), seed=seed)
    if sweep.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(STARTUP_TRIALS, sweep.count() // 5))


def _database_errors() -> tuple[type[Exception], ...]:
    """Return what addresses that lead nowhere, missing drivers and full disks raise."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    return ImportError, StorageInternalError, SQLAlchemyError


def _grid(sweep: Sweep) -> dict[str, list[Scalar]]:
    return {key: [_text(value) for value in values] for key, values in sweep.vary.items() if isinstance(values, list)}


def _take_back(study: optuna.Study) -> None:
    """Queue again what processes of this machine left behind that no longer live, and what failed."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False):
        gone = trial.state == TrialState.RUNNING and _is_dead(trial.user_attrs.get("by"))
        if gone:
            with contextlib.suppress(UpdateFinishedTrialError):  # another process looked at it a moment before
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        if gone or trial.state == TrialState.FAIL:
            _queue_again(study, trial)


def _queue_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Queue a trial's settings, unless it had none yet, or another trial has them."""
    if trial.params and not _has_twin(trial, study):
        study.enqueue_trial(trial.params)


def _is_dead(by: dict[str, Any] | None) -> bool:
    if by is None or by["host"] != platform.node():
        return False
    try:
        os.kill(by["pid"], 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # another user's lives
    return False


def _has_twin(trial: optuna.trial.FrozenTrial, study: optuna.Study) -> bool:
    """Whether another trial has the same settings and did not fail, or failed later: this one tells nothing then."""
    from optuna.trial import TrialState

    others = (
        other
        for other in study.get_trials(deepcopy=False)
        if other.number > trial.number or (other.number < trial.number and other.state != TrialState.FAIL)
    )
    return any(trial.params == (other.params or other.system_attrs.get("fixed_params")) for other in others)


def _enough(study: optuna.Study, sweep: Sweep) -> bool:
    """Whether nothing is left to begin."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        return False
    if sweep.method == "grid":
        grid = _grid(sweep)
        begun = {tuple(trial.params.get(key) for key in grid) for trial in trials}
        return all(combination in begun for combination in product(*grid.values()))
    return sum(not (trial.state == TrialState.FAIL and _has_twin(trial, study)) for trial in trials) >= sweep.count()


def _others(study: optuna.Study, console: Console) -> bool:
    """Wait until no other process has a trial; return whether one of them gave up, so that there is more to do."""
    import optuna

    said = False
    while running := study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if not said:
            console.say(f"waits for {len(running)} trials of other processes")
            said = True
        time.sleep(WAIT_S)
        optuna.storages.fail_stale_trials(study)
        _take_back(study)
    return bool(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)))


def _objectives(trial: optuna.Trial, path: Path, sweep: Sweep, out: Path, console: Console) -> tuple[float, ...]:
    """Run a recipe with the trial's settings; raises CompressError where that does not end in a report."""
    from optuna.trial import TrialState

    trial.set_user_attr("by", {"host": platform.node(), "pid": os.getpid()})
    if sweep.method != "grid":
        trial.study.sampler = _sampler(sweep, trial.number)
    settings = {key: _text(_suggested(trial, key, values)) for key, values in sweep.vary.items()}
    told = ", ".join(f"{key}={value}" for key, value in settings.items())
    done = len(trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    console.say(f"trial {trial.number}, {done} of {sweep.count()} done: {told}")
    # By content: whoever tries the same settings goes on where the run before was cut off.
    folder = out / "trials" / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
    try:
        _run(path.parent / sweep.recipe, settings, folder, out / "cache")
        values, row = _values(sweep, report.read(folder))
    except CompressError as error:
        trial.set_user_attr("why", str(error))
        console.say(f"trial {trial.number} failed: {error}")
        raise
    trial.set_user_attr("test_top1", row.top1)
    trial.set_user_attr("recipe", (folder / "recipe.yaml").read_text())
    console.say(
        f"trial {trial.number}: " + ", ".join(f"{heading(one)} {shown(one, values[one])}" for one in sweep.objectives)
    )
    return tuple(values.values())


def _suggested(trial: optuna.Trial, key: str, values: list[Any] | Range) -> Scalar | None:
    if isinstance(values, list):
        chosen: Scalar = yaml.safe_load(trial.suggest_categorical(key, [_text(value) for value in values]))
        return chosen
    if isinstance(values.low, int) and isinstance(values.high, int):
        return trial.suggest_int(key, values.low, values.high, log=values.log)
    return trial.suggest_float(key, values.low, values.high, log=values.log)


def _run(recipe_file: Path, settings: dict[str, str], folder: Path, cache: Path) -> None:
    """Run the recipe in a process of its own, with a log beside the folder; a gate's verdict is no failure."""
    command = [sys.executable, "-m", "compress", "run", str(recipe_file), "--out", str(folder), "--cache", str(cache)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("a") as stream:
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode
    if code not in EXIT_CODES.values():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("compress: ")]
        raise CompressError(f"{lines[-1].removeprefix('compress: ') if lines else f'exit code {code}'}; see {log}")


def _values(sweep: Sweep, content: report.Report) -> tuple[dict[Objective, float], report.Row]:
    """Return the objectives of what ships, and its row in the report."""
    target = sweep.target or content.targets[0]
    rows = content.rows_of(target)
    if not rows:
        raise CompressError(f"target '{target}' was not measured")
    row = rows[-1]
    found: dict[Objective, float | None] = {
        "top1": row.val_top1,
        "speedup_p50": row.speedup_p50.value if row.speedup_p50 else None,
        "latency_ms_p50": row.latency_ms_p50,
        "size_bytes": row.size_bytes,
    }
    values: dict[Objective, float] = {}
    for name in sweep.objectives:
        value = found[name]
        if value is None:
            needs = "the split val" if name == "top1" else "a second file on the target"
            raise CompressError(f"the objective {name} needs {needs}, which the recipe does not have")
        values[name] = float(value)
    return values, row


def _trials(study: optuna.Study, sweep: Sweep) -> list[Trial]:
    """Return all trials that ended, each settings once: processes that begin at once may take the same."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    first = {json.dumps(trial.params): trial.number for trial in reversed(complete)}
    failed = [
        trial for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)) if not _has_twin(trial, study)
    ]
    ended = [trial for trial in complete if first[json.dumps(trial.params)] == trial.number] + failed
    values = {trial.number: trial.values for trial in ended if trial.state == TrialState.COMPLETE}
    signs = [1 if DIRECTIONS[name] == "maximize" else -1 for name in sweep.objectives]
    front = {number for number, own in values.items()
             if not any(_beats(other, own, signs) for other in values.values())}  # fmt: skip
    return [
        Trial(
            number=trial.number,
            settings={key: _text(trial.params[key]) if isinstance(sweep.vary[key], Range) else str(trial.params[key])
                      for key in sweep.vary if key in trial.params},
            values=dict(zip(sweep.objectives, values.get(trial.number, ()), strict=False)),
            test_top1=trial.user_attrs.get("test_top1"),
            why=trial.user_attrs.get("why") if trial.number not in values else None,
            on_front=trial.number in front,
            recipe=trial.user_attrs.get("recipe"),
        )
        for trial in ended
    ]  # fmt: skip


def _beats(one: Sequence[float], other: Sequence[float], signs: Sequence[int]) -> bool:
    """Whether one is nowhere worse and somewhere better."""
    gains = [sign * (mine - theirs) for sign, mine, theirs in zip(signs, one, other, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def _text(value: Any) -> str:
    """Return a value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
    return text.removesuffix("\n...").strip()
