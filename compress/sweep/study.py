"""Optuna study of a sweep: shared by processes and machines, resumed after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import platform
import re
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from compress.pipeline.identity import identity
from compress.process.code_digest import code_digest
from compress.recipe.recipe import Recipe
from compress.sweep.config import DIRECTIONS, Range, Sweep
from runtimes.console import Console
from runtimes.errors import InputError, UnavailableError

if TYPE_CHECKING:
    import optuna

# Optuna is an optional package and loads slowly: functions import it.

HEARTBEAT_S, GRACE_S, WAIT_S = 60, 180, 2.0  # trials of a machine that stopped are restarted after GRACE_S
STARTUP_TRIALS = 5  # random trials before TPE uses results; a fifth of all trials if that is more
KEY_DIGITS = 12
Scalar = str | int | float | bool


def require_optuna() -> None:
    """Raise UnavailableError if Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UnavailableError("compress sweep needs Optuna: pip install optuna")


def name_of(stem: str, sweep: Sweep, recipe: Recipe, images: str) -> str:
    """Return the name of the study: the sweep file's stem and a digest of everything that decides a trial's result.

    images: identifies the images of the data set. The number of trials is not part of the name, so that a larger number
    continues the study.
    """
    content = {
        "recipe": recipe.model_dump(mode="json"),
        "files": identity([recipe.model, *recipe.stages]),  # the bytes of weights, the versions of packages
        "code": code_digest(),
        "images": images,
        "target": sweep.target or recipe.targets[0].name,
        **sweep.model_dump(mode="json", include={"vary", "method", "objectives", "seed"}),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{stem}-{digest[:KEY_DIGITS]}"


def open_study(name: str, sweep: Sweep, out: Path, storage: str | None, console: Console) -> optuna.Study:
    """Return the study with that name, new or resumed.

    storage: URL of a database for Optuna; a SQLite file in `out` by default. Say on the console if a new study starts
    beside studies of the same sweep file. Raises InputError if the database cannot be opened.
    """
    import optuna
    from sqlalchemy.pool import NullPool

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the console reports failed trials
    out.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{out.resolve() / 'sweep.db'}"
    try:
        database = optuna.storages.RDBStorage(
            url, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S, heartbeat_stale_trial_callback=_enqueue_again,
            engine_kwargs={"poolclass": NullPool},  # pooled connections would stay open after the study
        )  # fmt: skip
        study = optuna.create_study(
            storage=database, sampler=sampler(sweep, 0), study_name=name, load_if_exists=True,
            directions=[DIRECTIONS[objective] for objective in sweep.objectives],
        )  # fmt: skip
    except _database_errors() as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{url}: cannot be opened ({reason}); correct --storage") from error
    unused = _trials_of_other_studies(name, database)
    if unused and not study.get_trials(deepcopy=False):
        change = "the recipe, its files or the toolkit changed"
        console.say(f"{change}: {unused} earlier trials are kept in the database but not used")
    return study


def _trials_of_other_studies(name: str, database: optuna.storages.BaseStorage) -> int:
    """Return the number of trials in studies of the same sweep file with another recipe or other settings."""
    import optuna

    stem = name[: -KEY_DIGITS - 1]
    same_file = re.compile(re.escape(stem) + rf"-[0-9a-f]{{{KEY_DIGITS}}}")
    summaries = optuna.get_all_study_summaries(database, include_best_trial=False)
    return sum(
        summary.n_trials
        for summary in summaries
        if summary.study_name != name and same_file.fullmatch(summary.study_name)
    )


def sampler(sweep: Sweep, trial: int) -> optuna.samplers.BaseSampler:
    """Return the sampler for one trial; its seed depends on the trial's number, so that processes differ."""
    import optuna

    seed = sweep.seed + trial
    if sweep.method == "grid":
        return _grid_sampler(sweep, seed)
    if sweep.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(STARTUP_TRIALS, sweep.count() // 5))


def _grid_sampler(sweep: Sweep, seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler of all combinations that never stops the study; `nothing_to_start` decides that.

    Optuna's own fails after a trial that was enqueued, and after one that is marked as failed outside `optimize`.
    """
    import optuna

    class Sampler(optuna.samplers.GridSampler):
        def after_trial(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial, state: optuna.trial.TrialState,
            values: Sequence[float] | None,
        ) -> None:  # fmt: skip
            pass

    return Sampler(_grid(sweep), seed=seed)


def suggest(trial: optuna.Trial, sweep: Sweep) -> dict[str, str]:
    """Return the settings of a trial: the YAML text of each varied value, by dotted path."""
    return {key: yaml_text(_suggested(trial, key, values)) for key, values in sweep.vary.items()}


def _suggested(trial: optuna.Trial, key: str, values: list[Any] | Range) -> Scalar | None:
    if isinstance(values, list):
        choice: Scalar = yaml.safe_load(trial.suggest_categorical(key, [yaml_text(value) for value in values]))
        return choice
    if isinstance(values.low, int) and isinstance(values.high, int):
        return trial.suggest_int(key, values.low, values.high, log=values.log)
    return _rounded(trial.suggest_float(key, values.low, values.high, log=values.log), values)


def range_text(value: float, choices: Range) -> str:
    """Return the YAML text of a value that the search took from a range, as its trial's recipe has it."""
    return yaml_text(value if isinstance(value, int) else _rounded(value, choices))


def _rounded(value: float, choices: Range) -> float:
    """Return a number of a range with three significant digits, or the end of the range that it would pass."""
    return min(max(float(f"{value:.3g}"), float(choices.low)), float(choices.high))


def mark_owner(trial: optuna.Trial) -> None:
    """Record the process that runs a trial, so that another can restart the trial if the process dies."""
    trial.set_user_attr("by", {"host": platform.node(), "pid": os.getpid()})


def enqueue_interrupted(study: optuna.Study) -> None:
    """Enqueue again the failed trials, and the trials of dead processes on this machine."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False):
        dead = trial.state == TrialState.RUNNING and _is_dead(trial.user_attrs.get("by"))
        if dead:
            with contextlib.suppress(UpdateFinishedTrialError):  # another process was faster
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        if dead or trial.state == TrialState.FAIL:
            _enqueue_again(study, trial)


def nothing_to_start(study: optuna.Study, sweep: Sweep) -> bool:
    """Return whether every trial of the sweep has at least started."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        return False
    if sweep.method == "grid":
        grid = _grid(sweep)
        started = {tuple(trial.params.get(key) for key in grid) for trial in trials}
        return all(combination in started for combination in product(*grid.values()))
    return (
        sum(not (trial.state == TrialState.FAIL and _is_superseded(trial, study)) for trial in trials) >= sweep.count()
    )


def wait_for_others(study: optuna.Study, console: Console) -> bool:
    """Wait until no other process runs a trial; return whether interrupted trials are in the queue again."""
    import optuna

    reported = False
    while running := study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if not reported:
            console.say(f"waiting for {len(running)} trials of other processes")
            reported = True
        time.sleep(WAIT_S)
        optuna.storages.fail_stale_trials(study)
        enqueue_interrupted(study)
    return bool(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)))


def complete_count(study: optuna.Study) -> int:
    """Return the number of complete trials."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def finished_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return complete trials, then failed ones; one per settings, as processes may start the same settings at once."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    first = {json.dumps(trial.params): trial.number for trial in reversed(complete)}
    return [
        *(trial for trial in complete if first[json.dumps(trial.params)] == trial.number),
        *(trial for trial in failed if not _is_superseded(trial, study)),
    ]


def yaml_text(value: Any) -> str:  # Any: a value of a recipe
    """Return a value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
    return text.removesuffix("\n...").strip()


def _database_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions for wrong URLs, missing database drivers and full disks."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    return ImportError, StorageInternalError, SQLAlchemyError


def _grid(sweep: Sweep) -> dict[str, list[Scalar]]:
    return {
        key: [yaml_text(value) for value in values] for key, values in sweep.vary.items() if isinstance(values, list)
    }


def _enqueue_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Enqueue a trial's settings, unless it has none yet or another trial has the same."""
    if trial.params and not _is_superseded(trial, study):
        study.enqueue_trial(trial.params)


def _is_dead(owner: dict[str, Any] | None) -> bool:
    """Return whether the process that `mark_owner` recorded ran on this machine and has ended."""
    if owner is None or owner["host"] != platform.node():
        return False
    try:
        os.kill(owner["pid"], 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # PermissionError: a live process of another user
    return False


def _is_superseded(trial: optuna.trial.FrozenTrial, study: optuna.Study) -> bool:
    """Return whether another trial has the same settings, and is later or did not fail."""
    from optuna.trial import TrialState

    others = (
        other
        for other in study.get_trials(deepcopy=False)
        if other.number > trial.number or (other.number < trial.number and other.state != TrialState.FAIL)
    )
    return any(trial.params == (other.params or other.system_attrs.get("fixed_params")) for other in others)
