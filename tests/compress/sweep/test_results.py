"""Results of a sweep: the Pareto front, the table and the files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.sweep import results
from compress.sweep.config import Objective, Sweep
from compress.sweep.results import Trial
from compress.verdict.statistics import Estimate

BOTH: tuple[Objective, ...] = ("top1", "latency_ms_p50")


def exact(value: float) -> Estimate:
    return Estimate(value, value, value)


def sweep(**fields: Any) -> Sweep:
    vary = {"stages.0.lr": [0.1, 0.2], "model.width": [1, 2]}
    return Sweep.model_validate({"recipe": "r.yaml", "vary": vary, **fields})


def trial(number: int, top1: float, latency_ms: float, on_front: bool = False) -> Trial:
    values: dict[Objective, Estimate] = {"top1": exact(top1), "latency_ms_p50": exact(latency_ms)}
    return Trial(
        number, {"stages.0.lr": "0.1", "model.width": str(number)}, values,
        test_metric=top1 - 0.01, why=None, on_front=on_front, recipe=f"name: trial-{number}\n",
    )  # fmt: skip


FAILED = Trial(7, {"stages.0.lr": "0.2", "model.width": "2"}, {}, None, "the loss is NaN", False, None)


@pytest.mark.parametrize(
    ("objectives", "values", "front"),
    [
        (BOTH, {0: [0.9, 5.0], 1: [0.8, 3.0], 2: [0.8, 4.0], 3: [0.7, 3.5]}, {0, 1}),
        (BOTH, {0: [0.9, 5.0], 1: [0.9, 5.0]}, {0, 1}),  # equal trials do not dominate each other
        (BOTH, {0: [0.9, 5.0], 1: [0.9, 4.0]}, {1}),
        (("top1",), {0: [0.9], 1: [0.8], 2: [0.95]}, {2}),
        (("speedup_p50", "size_bytes"), {0: [2.0, 10.0], 1: [3.0, 10.0], 2: [1.0, 5.0]}, {1, 2}),
        (BOTH, {}, set()),
    ],
)
def test_the_front_has_the_trials_that_none_dominates(
    objectives: tuple[Objective, ...], values: dict[int, list[float]], front: set[int]
) -> None:
    estimates = {number: [exact(value) for value in own] for number, own in values.items()}
    assert results.pareto_front(estimates, objectives).keys() == front


def near(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half)


def test_a_trial_is_on_the_front_only_by_more_than_noise() -> None:
    values = {
        0: [near(0.90, 0.01), near(5.0, 0.1)],
        1: [near(0.901, 0.01), near(4.0, 0.1)],  # beats 0: faster, and not less accurate
        2: [near(0.895, 0.01), near(3.98, 0.1)],  # as good as 1
        3: [near(0.80, 0.01), near(3.0, 0.1)],
        4: [near(0.79, 0.01), near(4.5, 0.1)],
    }
    assert results.pareto_front(values, BOTH) == {1: (2,), 2: (1,), 3: ()}


def test_equal_trials_are_marked_as_not_distinguishable() -> None:
    values = {number: [exact(0.9), exact(5.0)] for number in range(5)}
    front = results.pareto_front(values, BOTH)
    assert front[0] == (1, 2, 3, 4)
    rows = results.table("try", [replace(trial(0, 0.9, 5.0, True), like=front[0])], sweep()).rows
    assert rows[0][-1] == "~ 1, 2, 3, …"


def test_the_front_of_a_circle_is_the_circle() -> None:
    objectives: tuple[Objective, ...] = ("top1", "balanced_accuracy", "macro_f1")
    values = {
        0: [near(0.9, 0.01), near(0.5, 0.2), near(0.5, 0.01)],
        1: [near(0.5, 0.01), near(0.6, 0.01), near(0.5, 0.2)],
        2: [near(0.7, 0.25), near(0.4, 0.01), near(0.9, 0.01)],
    }
    assert results.pareto_front(values, objectives).keys() <= values.keys()
    assert results.pareto_front(values, objectives)


def test_a_value_has_half_its_interval_beside_it() -> None:
    assert results.with_interval("top1", near(0.9, 0.0125)) == "90.00 ±1.25"
    assert results.with_interval("size_bytes", exact(2e6)) == "2.00"


def test_the_table_has_the_front_first_and_failed_trials_last() -> None:
    trials = [FAILED, trial(1, 0.7, 3.0), trial(2, 0.8, 3.0, True), trial(3, 0.9, 5.0, True), trial(4, 0.75, 9.0)]
    table = results.table("try", trials, sweep())
    assert table.title == "try: grid, 5 trials"
    assert [column.name for column in table.columns] == ["trial", "lr", "width", "val %", "p50 ms", "test %", "front"]
    assert [row[0] for row in table.rows] == ["3", "2", "4", "1", "7"]
    assert table.rows[0] == ("3", "0.1", "3", "90.00", "5.000", "89.00", "*")
    assert table.rows[-1] == ("7", "0.2", "2", "failed", "", "", "")


def test_a_minimized_first_objective_sorts_the_other_way() -> None:
    table = results.table("try", [trial(1, 0.7, 3.0), trial(2, 0.8, 2.0)], sweep(objectives=["latency_ms_p50", "top1"]))
    assert [row[0] for row in table.rows] == ["2", "1"]


@pytest.mark.parametrize(
    ("vary", "headings"),
    [
        ({"stages.0.epochs": [1], "stages.1.epochs": [2]}, ["stages.0.epochs", "stages.1.epochs"]),
        ({"stages.0.epochs": [1], "seed": [2]}, ["epochs", "seed"]),
        ({"stages.0.epochs": [1]}, ["stages.0.epochs"]),
    ],
)
def test_columns_of_settings_have_different_names(vary: dict[str, list[int]], headings: list[str]) -> None:
    columns = results.table("try", [], sweep(vary=vary)).columns
    assert [column.name for column in columns][1 : 1 + len(vary)] == headings


@pytest.mark.parametrize(
    ("objective", "value", "text"),
    [
        ("top1", 0.91234, "91.23"), ("latency_ms_p50", 1.23456, "1.235"), ("speedup_p50", 2.0, "2.000"),
        ("size_bytes", 3_456_789, "3.46"),
    ],
)  # fmt: skip
def test_values_are_in_the_unit_of_their_heading(objective: Objective, value: float, text: str) -> None:
    assert results.format_value(objective, value) == text


def test_the_files_hold_all_trials_and_the_recipes_of_the_front_alone(tmp_path: Path) -> None:
    (tmp_path / "front").mkdir()
    (tmp_path / "front/99.yaml").write_text("name: earlier\n")
    results.write("try", [trial(1, 0.7, 3.0), trial(2, 0.8, 3.0, True), FAILED], sweep(), tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / "front").iterdir()} == {"2.yaml": "name: trial-2\n"}
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["sweep"]["vary"] == {"stages.0.lr": [0.1, 0.2], "model.width": [1, 2]}
    assert [record["number"] for record in content["trials"]] == [1, 2, 7]
    assert content["trials"][2]["why"] == "the loss is NaN"
    text = (tmp_path / "sweep.md").read_text()
    assert text.startswith("# try\n")
    assert "| 2 | 0.1 | 2 | 80.00 | 3.000 | 79.00 | * |" in text
    assert "![top-1 on val against latency](front.svg)" in text
    assert (tmp_path / "front.svg").read_text().startswith("<svg")


def test_without_both_accuracy_and_latency_there_is_no_chart(tmp_path: Path) -> None:
    results.write("try", [trial(1, 0.7, 3.0, True)], sweep(objectives=["top1"]), tmp_path)
    assert not (tmp_path / "front.svg").exists()
    assert "front.svg" not in (tmp_path / "sweep.md").read_text()


def test_the_metric_has_its_heading_and_chart(tmp_path: Path) -> None:
    metric: tuple[Objective, ...] = ("balanced_accuracy", "latency_ms_p50")
    made = [replace(trial(1, 0.7, 3.0, True), values={"balanced_accuracy": exact(0.65), "latency_ms_p50": exact(3.0)})]
    results.write("try", made, sweep(objectives=metric), tmp_path)
    text = (tmp_path / "sweep.md").read_text()
    assert "| val balanced % | p50 ms | test % |" in text
    assert "| 65.00 | 3.000 | 69.00 |" in text
    assert "`test %` is balanced accuracy on the test split" in text
    assert "![balanced accuracy on val against latency](front.svg)" in text
