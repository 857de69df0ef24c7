"""Results of a sweep: sweep.json, a table, a chart, and the recipes of the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from compress.process.table import Table
from compress.report import charts
from compress.sweep.config import DIRECTIONS, Objective, Sweep
from compress.verdict.metrics import NAMES
from runtimes.files import write_json, write_text

HEADINGS: dict[Objective, str] = {
    "top1": "val %", "balanced_accuracy": "val balanced %", "macro_f1": "val macro-F1 %",
    "latency_ms_p50": "p50 ms", "speedup_p50": "speed-up (paired)", "size_bytes": "MB",
}  # fmt: skip
FRONT_NOTE = (
    "`front` marks the Pareto front: no other trial is at least as good in all objectives and better in one. The "
    "recipes of the front are in `front/`. Columns with `val` are objectives, measured on val. `test %` is {metric} on "
    "the test split, which no choice depends on: the accuracy to expect on new images."
)


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    settings: YAML text of each varied value, by dotted path. values: by objective, empty if the trial failed.
    test_metric: the sweep's metric on the test split, None without labels. why: the
    error of a failed trial. recipe: YAML text of the resolved recipe.
    """

    number: int
    settings: dict[str, str]
    values: dict[Objective, float]
    test_metric: float | None
    why: str | None
    on_front: bool
    recipe: str | None


def pareto_front(values: dict[int, Sequence[float]], objectives: Sequence[Objective]) -> set[int]:
    """Return the keys of the trials that no other trial dominates; values are in the order of the objectives."""
    signs = [1 if DIRECTIONS[name] == "maximize" else -1 for name in objectives]

    def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
        gains = [sign * (a - b) for sign, a, b in zip(signs, first, second, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    return {
        number for number, own in values.items() if not any(dominates(other, own) for other in values.values())
    }  # fmt: skip


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
    order = sorted(trials, key=lambda trial: (not trial.on_front, not trial.values, sign * trial.values.get(best, 0.0)))
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
        points = [
            charts.Point(str(trial.number), "int8" if trial.on_front else "neutral", trial.values["latency_ms_p50"],
                         100 * trial.values[metric])
            for trial in trials if trial.values
        ]  # fmt: skip
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


def _short(keys: Iterable[str]) -> list[str]:
    """Return the last parts of dotted paths, or the whole paths if two last parts are equal."""
    paths = list(keys)
    last = [path.rpartition(".")[2] for path in paths]
    return last if len(set(last)) == len(paths) > 1 else paths


def _row(trial: Trial, sweep: Sweep) -> list[str]:
    settings = [trial.settings.get(key, "") for key in sweep.vary]
    if trial.values:
        values = [format_value(objective, trial.values[objective]) for objective in sweep.objectives]
    else:
        values = ["failed"] + [""] * (len(sweep.objectives) - 1)
    test_metric = "" if trial.test_metric is None else f"{100 * trial.test_metric:.2f}"
    return [str(trial.number), *settings, *values, test_metric, "*" if trial.on_front else ""]
