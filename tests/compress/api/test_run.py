"""`compress.run`: recipes and overrides, with a stand-in for the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_report import measurement, publish

import compress
from compress.api import run as api
from compress.api.run import loaded
from compress.pipeline.run_folder import RunFolder
from compress.recipe import own_code
from compress.recipe.recipe import Recipe
from compress.report.report import Report
from runtimes.console import Console
from runtimes.errors import InputError

SMOKE = Path(__file__).parents[3] / "recipes" / "smoke.yaml"


@pytest.mark.parametrize("recipe", ["smoke", str(SMOKE), SMOKE])
def test_a_recipe_is_a_name_or_a_path(recipe: str | Path) -> None:
    assert loaded(recipe, {}).name == "smoke"


def test_a_recipe_is_a_dict_which_is_not_changed() -> None:
    content = yaml.safe_load(SMOKE.read_text())
    before = yaml.safe_dump(content)
    assert loaded(content, {"seed": 3}).model_dump() == {**loaded("smoke", {"seed": 3}).model_dump(), "name": "recipe"}
    assert yaml.safe_dump(content) == before


def test_a_validated_recipe_takes_overrides_too() -> None:
    recipe = loaded("smoke", {})
    assert loaded(recipe, {}) is recipe
    assert loaded(recipe, {"seed": 3}) == loaded("smoke", {"seed": 3})


@pytest.mark.parametrize(("overrides", "path", "value"), [
    ({"stages.0.epochs": 5}, ("stages", 0, "epochs"), 5),
    ({"stages.0.lr": 1e-05}, ("stages", 0, "lr"), 1e-05),
    ({"stages.0.lr": np.float64(0.5)}, ("stages", 0, "lr"), 0.5),
    ({"targets": ("desktop-cpu",)}, ("targets", 0, "name"), "desktop-cpu"),
    ({"quantize": None}, ("quantize",), None),
    ({"model.weights": Path("é: #1.pth")}, ("model", "weights"), "é: #1.pth"),
    ({"gate": {"min_recall": {"1": 0.5}}}, ("gate", "min_recall"), {"1": 0.5}),
    ({"name": "007"}, ("name",), "007"),
])  # fmt: skip
def test_an_override_is_a_python_value(overrides: dict[str, Any], path: tuple[Any, ...], value: object) -> None:
    content: Any = loaded("smoke", overrides).model_dump(mode="json")
    for part in path:
        content = content[part]
    assert content == value


@pytest.mark.parametrize(("recipe", "overrides", "message"), [
    ("smokes", {}, "smokes: no such file; did you mean the shipped 'smoke'?"),
    (3, {}, "recipe: must be a name, a path or a dict, not int"),
    ({"data": {"name": "synthetic"}}, {}, "recipe: model: is required"),
    ("smoke", {"stages.1.epochs": 3}, "--set stages.1.epochs=3: '1' must be an index from 0 to 0"),
    ("smoke", {"seeds": 3}, f"{SMOKE}: seeds: unknown key; did you mean 'seed'?"),
    ("smoke", {"seed": object()}, "seed: must be a value that YAML can hold (not a object)"),
])  # fmt: skip
def test_a_wrong_recipe_is_one_line(recipe: Any, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        loaded(recipe, overrides)
    assert str(error.value) == message


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Recipe, RunFolder]]:
    """Return a list that collects runs in place of doing them."""
    collected = []

    def run(recipe: Recipe, folder: RunFolder, console: Console, track: object) -> Report:
        console.say("trained")
        collected.append((recipe, folder))
        return publish(tmp_path / "made", measurement("int8", 40, 1.0, 2_000_000), None)

    monkeypatch.setattr(api.pipeline, "run", run)
    monkeypatch.chdir(tmp_path)
    return collected


def test_the_report_shows_itself_and_only_messages_are_printed(
    runs: list[tuple[Recipe, RunFolder]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = compress.run("smoke", seed=7)
    (recipe, folder), *_ = runs
    assert (recipe.seed, folder.path, folder.cache) == (7, Path("runs/smoke"), Path("runs/smoke"))
    assert capsys.readouterr() == ("", "trained\n")
    assert repr(report).splitlines() == [
        "test: no verdict, the recipe has no gate",
        "  board: model-float32.onnx, top-1 90.00 %, 8.00 MB, p50 2.01 ms",
        "  board: model-int8.onnx, top-1 90.00 %, 2.00 MB, p50 1.01 ms",
        f"  report: {tmp_path / 'made' / 'run' / 'report.html'}",
    ]


def test_a_quiet_run_in_another_folder_prints_nothing(
    runs: list[tuple[Recipe, RunFolder]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the folder is not locked for this process
        compress.run("smoke", out=str(tmp_path / "a"), cache=str(tmp_path / "b"), quiet=True)
    _, folder = runs[0]
    assert (folder.path, folder.cache) == (tmp_path / "a", tmp_path / "b")
    assert capsys.readouterr() == ("", "")


def test_other_processes_of_torchrun_exit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(api.pipeline, "run", lambda *arguments: None)
    with pytest.raises(SystemExit) as ended:
        compress.run("smoke", out=tmp_path / "run")
    assert not ended.value.code


def test_networks_of_a_named_file_can_be_used(runs: list[tuple[Recipe, RunFolder]], tmp_path: Path) -> None:
    file = tmp_path / "notebook_net.py"
    file.write_text("def build(num_classes, width=8):\n    raise AssertionError\n")
    model = {"arch": "notebook_net:build", "width": 4}
    with pytest.raises(InputError, match="notebook_net"):
        compress.run("smoke", model=model)
    try:
        compress.run("smoke", model=model, code=file, quiet=True)
    finally:
        own_code.use(())
    assert runs[0][0].model.width == 4
