"""Results of a sweep: sweep.json, a table, a chart, and the recipes of the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from compress.process.table import Table
from compress.report import charts
from compress.sweep.config import DIRECTIONS, Objective, Sweep
from compress.verdict.metrics import NAMES, Metric
from compress.verdict.statistics import Estimate
from runtimes.files import write_json, write_text

HEADINGS: dict[Objective, str] = {
    "top1": "val %", "balanced_accuracy": "val balanced %", "macro_f1": "val macro-F1 %",
    "latency_ms_p50": "p50 ms", "speedup_p50": "speed-up (paired)", "size_bytes": "MB",
}  # fmt: skip
SHOWN = 3  # trials in a cell of the table
FRONT_NOTE = (
    "`front` marks the Pareto front: the trials to which no other is preferable, which means better by more than noise "
    "in an objective, and worse by more than noise in none. `*`: differs from each other trial of the front by more "
    "than noise. `~ 3`: not distinguishable from trial 3. `±` is half the distance of two one-sided bounds of 95 % "
    "confidence. The recipes of the front are in `front/`. Columns with `val` are objectives, measured on val. "
    "`test %` is {metric} on the test split, which no choice depends on: the accuracy to expect on new images."
)


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    settings: YAML text of each varied value, by dotted path. values: by objective, with bounds; empty if the trial
    failed. test_metric: the sweep's metric on the test split, None without labels. why: the error of a failed trial.
    recipe: YAML text of the resolved recipe. like: other trials of the front that are not distinguishable from it.
    """

    number: int
    settings: dict[str, str]
    values: dict[Objective, Estimate]
    test_metric: float | None
    why: str | None
    on_front: bool
    recipe: str | None
    like: tuple[int, ...] = ()


def pareto_front(
    values: Mapping[int, Sequence[Estimate]], objectives: Sequence[Objective]
) -> dict[int, tuple[int, ...]]:
    """Return the trials of the Pareto front, each with the others of the front that are not distinguishable from it.

    values: by trial, in the order of the objectives. A trial is beaten by one that is better by more than noise in an
    objective, and worse by more than noise in none.
    """

    def is_better(first: int, second: int) -> bool:
        return any(map(_is_better, values[first], values[second], objectives))

    def beats(first: int, second: int) -> bool:
        return is_better(first, second) and not is_better(second, first)

    # Trials can beat each other in a circle, as noise is not transitive; then all of them stay.
    front = [number for number in values if not any(beats(other, number) for other in values)] or list(values)
    return {
        number: tuple(other for other in front
                      if other != number and not is_better(number, other) and not is_better(other, number))
        for number in front
    }  # fmt: skip


def _is_better(first: Estimate, second: Estimate, objective: Objective) -> bool:
    """Return whether the lower bound of a gain is above 0; MOVER (Zou and Donner, 2008), for independent estimates."""
    if DIRECTIONS[objective] == "minimize":
        first, second = (Estimate(-each.value, -each.high, -each.low) for each in (first, second))
    return first.value - second.value > math.hypot(first.value - first.low, second.high - second.value)


def table(name: str, trials: Sequence[Trial], sweep: Sweep) -> Table:
    """Return one row per trial: first the Pareto front, last the failed trials, within each by the first objective."""
    headings = [
        "trial",
        *_short(sweep.vary),
        *(HEADINGS[objective] for objective in sweep.objectives),
        "test %",
        "front",
    ]
    best = sweep.objectives[0]
    sign = -1 if DIRECTIONS[best] == "maximize" else 1
    order = sorted(
        trials,
        key=lambda trial: (
            not trial.on_front,
            not trial.values,
            sign * trial.values[best].value if trial.values else 0.0,
        ),
    )
    rows = [_row(trial, sweep) for trial in order]
    return Table.of(f"{name}: {sweep.method}, {len(trials)} trials", "|".join(headings), rows)


def write(name: str, trials: list[Trial], sweep: Sweep, out: Path) -> None:
    """Write sweep.json, sweep.md, front.svg and front/<trial>.yaml to the folder of the sweep."""
    for old in (out / "front").glob("*.yaml"):
        old.unlink()
    for trial in trials:
        if trial.on_front and trial.recipe:
            write_text(out / "front" / f"{trial.number}.yaml", trial.recipe)
    content = {"sweep": sweep.model_dump(mode="json"), "trials": [asdict(trial) for trial in trials]}
    write_json(out / "sweep.json", content)
    lines = [
        f"# {name}",
        "",
        *table(name, trials, sweep).markdown(),
        "",
        FRONT_NOTE.format(metric=NAMES[sweep.metric]),
        "",
    ]
    metric, name_of_metric = sweep.metric, NAMES[sweep.metric]
    if {metric, "latency_ms_p50"} <= set(sweep.objectives):
        points = [_point(trial, metric) for trial in trials if trial.values]
        chart = charts.accuracy_latency(f"{name}: {name_of_metric} on val", points, f"{name_of_metric} %")
        write_text(out / "front.svg", charts.standalone(chart))
        lines += [f"![{name_of_metric} on val against latency](front.svg)", ""]
    else:
        (out / "front.svg").unlink(missing_ok=True)  # of a sweep with other objectives
    write_text(out / "sweep.md", "\n".join(lines))


def format_value(objective: Objective, value: float) -> str:
    """Return the value of an objective as text, in the unit of its heading."""
    if objective == "size_bytes":
        return f"{value / 1e6:.2f}"
    return f"{100 * value:.2f}" if objective in NAMES else f"{value:.3f}"


def with_interval(objective: Objective, value: Estimate) -> str:
    """Return an estimate as text, with half of its interval if it has one."""
    half = (value.high - value.low) / 2
    return format_value(objective, value.value) + (f" ±{format_value(objective, half)}" if half else "")


def _point(trial: Trial, metric: Metric) -> charts.Point:
    """Return the point of a trial in the chart, with the interval of its metric."""
    of_metric = trial.values[metric]
    return charts.Point(
        str(trial.number), "int8" if trial.on_front else "neutral", trial.values["latency_ms_p50"].value,
        100 * of_metric.value, y_from=100 * of_metric.low, y_to=100 * of_metric.high,
    )  # fmt: skip


def _mark(trial: Trial) -> str:
    """Return the cell of the column `front`."""
    if not trial.on_front or not trial.like:
        return "*" if trial.on_front else ""
    return f"~ {', '.join(map(str, trial.like[:SHOWN]))}{', …' if len(trial.like) > SHOWN else ''}"


def _short(keys: Iterable[str]) -> list[str]:
    """Return the last parts of dotted paths, or the whole paths if two last parts are equal."""
    paths = list(keys)
    last = [path.rpartition(".")[2] for path in paths]
    return last if len(set(last)) == len(paths) > 1 else paths


def _row(trial: Trial, sweep: Sweep) -> list[str]:
    settings = [trial.settings.get(key, "") for key in sweep.vary]
    if trial.values:
        values = [with_interval(objective, trial.values[objective]) for objective in sweep.objectives]
    else:
        values = ["failed"] + [""] * (len(sweep.objectives) - 1)
    test_metric = "" if trial.test_metric is None else f"{100 * trial.test_metric:.2f}"
    return [str(trial.number), *settings, *values, test_metric, _mark(trial)]
