"""What came out of a sweep: its table, its picture, and the recipes of its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from compress.report import charts
from compress.sweep.config import DIRECTIONS, Objective, Sweep
from runtimes.files import write_json, write_text


@dataclass(frozen=True)
class Trial:
    """What one run gave. settings: as YAML, by path. values: of the objectives; empty, and `why` told, if it failed."""

    number: int
    settings: dict[str, str]
    values: dict[str, float]
    test_top1: float | None
    why: str | None
    on_front: bool
    recipe: str | None


def table(trials: Sequence[Trial], sweep: Sweep) -> list[list[str]]:
    """Return a header, then a line per trial, those of the front first."""
    settings = [key.rpartition(".")[2] if len(sweep.vary) > 1 else key for key in sweep.vary]
    lines = [["trial", *settings, *(heading(one) for one in sweep.objectives), "test %", "front"]]
    best = sweep.objectives[0]
    sign = -1 if DIRECTIONS[best] == "maximize" else 1
    order = sorted(trials, key=lambda one: (not one.on_front, not one.values, sign * one.values.get(best, 0.0)))
    for one in order:
        values = [shown(name, one.values[name]) for name in sweep.objectives] if one.values else ["failed"]
        test = "" if one.test_top1 is None else f"{100 * one.test_top1:.2f}"
        values += [""] * (len(sweep.objectives) - len(values))
        settings_of = [one.settings.get(key, "") for key in sweep.vary]
        lines.append([str(one.number), *settings_of, *values, test, "*" if one.on_front else ""])
    return lines


def write(trials: list[Trial], sweep: Sweep, name: str, out: Path) -> None:
    """Write sweep.json, sweep.md, front.svg and front/<trial>.yaml to the sweep's folder."""
    for old in (out / "front").glob("*.yaml"):
        old.unlink()
    for one in trials:
        if one.on_front and one.recipe:
            write_text(out / "front" / f"{one.number}.yaml", one.recipe)
    write_json(out / "sweep.json", {"sweep": sweep.model_dump(mode="json"), "trials": [asdict(one) for one in trials]})
    header, *rows = table(trials, sweep)
    lines = [f"# {name}", "", f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}",
             *(f"| {' | '.join(row)} |" for row in rows), "",
             "`front`: nothing else is better in one objective without being worse in another; its recipes are in "
             "`front/`. top-1 is on val, by which they were chosen; test is what to expect.", ""]  # fmt: skip
    done = [one for one in trials if one.values]
    if {"top1", "latency_ms_p50"} <= set(sweep.objectives):
        points = [charts.Point(str(one.number), "int8" if one.on_front else "neutral", one.values["latency_ms_p50"],
                               100 * one.values["top1"]) for one in done]  # fmt: skip
        write_text(out / "front.svg", charts.standalone(charts.accuracy_latency(f"{name}: top-1 on val", points)))
        lines += ["![top-1 on val against latency](front.svg)", ""]
    write_text(out / "sweep.md", "\n".join(lines))


def heading(name: Objective) -> str:
    """Return what a column of an objective is called."""
    return {"top1": "val %", "latency_ms_p50": "p50 ms", "speedup_p50": "speed-up", "size_bytes": "MB"}[name]


def shown(name: Objective, value: float) -> str:
    """Return an objective's value as text, in the unit of its heading."""
    if name == "size_bytes":
        return f"{value / 1e6:.2f}"
    return f"{100 * value:.2f}" if name == "top1" else f"{value:.3f}"
