"""Plans of runs: they name the steps that a run makes, find those that are reused, and write nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consoles import RecordingConsole

from compress.pipeline import duration, plan
from compress.pipeline import run as pipeline
from compress.pipeline.checks import unavailable_targets
from compress.pipeline.run_folder import RunFolder
from compress.recipe import plugins
from compress.recipe import recipe as recipes
from compress.recipe.recipe import Recipe

pytestmark = pytest.mark.usefixtures("exports")
MakeRecipe = Callable[..., Recipe]
TRAIN = {"stage": "train", "epochs": 1, "batch_size": 8, "warmup_epochs": 0}
SMOKE = Path(__file__).parents[3] / "recipes" / "smoke.yaml"
INSIDE = {"images-train", "images-val", "images-calibration"}  # steps inside other steps


@pytest.fixture(autouse=True)
def second_per_100_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no estimate depend on this machine."""
    monkeypatch.setattr(duration, "time_per_image_s", lambda *_: 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Recipe], list[str]]:
    """Return a function that runs a recipe in one folder and returns the names of its steps."""

    def run_recipe(recipe: Recipe) -> list[str]:
        console = RecordingConsole()
        report = pipeline.run(recipe, RunFolder(tmp_path / "run", recipe.name, False), console, lambda *_: None)
        assert report is not None
        return [name for name in report.durations_s if name not in INSIDE]

    return run_recipe


def files(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("sections", [
    {},
    {"quantize": None, "stages": [TRAIN, {"stage": "prune", "macs": 0.7, "importance": "l2"}]},
    {"export": {"input": "uint8"}, "stages": [TRAIN], "targets": [{"name": "a"}, "raspberry-pi-5"]},
])  # fmt: skip
def test_a_plan_names_the_steps_of_the_run_and_then_finds_them_all(
    make_recipe: MakeRecipe, run: Callable[[Recipe], list[str]], tmp_path: Path, sections: dict[str, Any]
) -> None:
    recipe = make_recipe(**sections)
    before = plan.of_recipe(recipe, tmp_path / "run")
    assert before.expected_s.keys() == set(before.steps)
    assert not (tmp_path / "run").exists()
    assert sorted(before.steps) == sorted(run(recipe))
    made = files(tmp_path / "run")
    after = plan.of_recipe(recipe, tmp_path / "run")
    assert after.steps == before.steps
    assert after.expected_s == {}
    assert after.summary() == f"all {len(after.steps)} steps are reused"
    assert files(tmp_path / "run") == made


def test_what_depends_on_a_changed_setting_runs_and_the_rest_is_reused(
    make_recipe: MakeRecipe, run: Callable[[Recipe], list[str]], tmp_path: Path
) -> None:
    sections: dict[str, Any] = {
        "quantize": None,
        "stages": [TRAIN, {"stage": "prune", "macs": 0.7, "importance": "l2"}],
    }
    run(make_recipe(**sections))
    changed = plan.of_recipe(
        make_recipe(**{**sections, "stages": [TRAIN, {"stage": "prune", "macs": 0.5, "importance": "l2"}]}),
        tmp_path / "run",
    )
    assert set(changed.expected_s) == {
        "check-network", "1-prune", "float32", "val-local", "measure-local", "predictions-1-prune",
    }  # fmt: skip
    timing = {"warmup": 1, "blocks": 3, "runs_per_block": 2, "sessions": 1}
    measured_again = plan.of_recipe(make_recipe(**sections, timing=timing), tmp_path / "run")
    assert set(measured_again.expected_s) == {"measure-local"}
    rows = {row[0]: row[1:] for row in changed.table().rows}
    assert rows["0-train"] == ("reused", "")
    assert rows["1-prune"][0] == "runs"
    assert changed.summary().endswith("; 6 of 12 steps run, the others are reused")


def test_the_summary_says_how_many_steps_run() -> None:
    assert plan.Plan(("a", "b"), {}).summary() == "all 2 steps are reused"
    assert plan.Plan(("a", "b"), {"a": 60.0}).summary().endswith("; 1 of 2 steps run, the others are reused")
    assert plan.Plan(("a", "b"), {"a": 60.0, "b": 1.0}).summary().endswith("; all 2 steps run")


def test_the_estimate_of_the_smallest_recipe_is_that_of_its_comment() -> None:
    recipe = recipes.load(SMOKE)
    data = plugins.load("data", recipe.data.name).load(recipe.data)
    assert 15 < plan.estimate_s(recipe, data) < 120  # "in under a minute"


def test_engines_are_planned_where_they_can_be_built(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(targets=[{"name": "here"}, "jetson-orin-nano"])
    data = plugins.load("data", recipe.data.name).load(recipe.data)
    monkeypatch.setattr("runtimes.engine.why_not_built", lambda target: None)
    names = list(plan.step_names(recipe, data, unavailable_targets(recipe)))
    assert [name for name in names if name.startswith("engine")] == [
        f"engine-jetson-orin-nano-{precision}" for precision in ("float32", "float16", "int8")
    ]
