"""The command init."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from coloured_folders import make_classes
from command_line import assert_one_line, call

from compress.init import start
from compress.init.start import Start
from compress.pipeline import plan
from compress.recipe.network_defaults import IMAGENET
from runtimes.files import read_json

TINY = Start({"arch": "mobilenet_v2", "width": 0.25, "weights": None}, IMAGENET, "random", "install trained weights")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of 30 images; the network is tiny and the estimate needs no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "choose", lambda weights, classes: TINY)
    monkeypatch.setattr(plan, "estimate_s", lambda *_: 300.0)
    return make_classes(tmp_path / "flowers", {"rose": 30, "tulip": 30, "daisy": 30})


def test_a_valid_recipe_is_written_and_the_next_command_named(folder: Path) -> None:
    result = call("init", folder)
    assert result.exit_code == 0, result.output
    for line in (
        "warning: the starting weights are random: install trained weights",
        "weights: random",
        "wrote recipe.yaml; it takes about 5 min on this machine",
        "next: compress run recipe.yaml",
    ):
        assert line in result.stdout.splitlines()
    assert [line for line in result.stdout.splitlines() if line.split() == ["rose", *line.split()[1:4], "30"]]
    validated = call("validate", "recipe.yaml")
    assert validated.exit_code == 0, validated.output
    assert "not checked" not in validated.output


def test_the_next_command_can_be_pasted_into_a_shell(folder: Path) -> None:
    assert "next: compress run 'my recipe.yaml'\n" in call("init", folder, "-o", "my recipe.yaml").stdout


def test_a_recipe_is_overwritten_with_force_only(folder: Path) -> None:
    Path("mine.yaml").write_text("precious")
    assert_one_line(call("init", folder, "-o", "mine.yaml"), 2, "mine.yaml: exists", "--force")
    assert Path("mine.yaml").read_text() == "precious"
    assert call("init", folder, "-o", "mine.yaml", "--force").exit_code == 0
    assert yaml.safe_load(Path("mine.yaml").read_text())["name"] == "flowers"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["nowhere"], "nowhere"), (["flat"], "class"), (["flowers", "-o", "none/x.yaml"], "there is no folder none"),
     (["flowers", "-o", "flat"], "is a folder"), (["single"], "class 'b' has 2 images"),
     (["flowers", "-o", "/proc/x"], "/proc/x: can't be written"), (["flowers", "--weights", "x.pth"], "no such file")],
)  # fmt: skip
def test_bad_input_is_one_line(folder: Path, arguments: list[str], part: str) -> None:
    make_classes(folder.parent, {"flat": 3})
    make_classes(folder.parent / "single", {"a": 9, "b": 2})
    assert_one_line(call("init", *arguments), 2, part)


@pytest.mark.slow  # trains networks: some minutes
@pytest.mark.usefixtures("folder", "one_thread")
@pytest.mark.parametrize(
    ("counts", "metric"),
    [((20, 20, 20), "top1"), ((90, 70, 50, 40, 35, 30), "balanced_accuracy"), ((8,) * 50, "top1")],
    ids=["3-classes", "6-imbalanced-classes", "50-classes"],
)
def test_the_recipe_runs_and_beats_chance_by_the_margin_of_its_gate(counts: tuple[int, ...], metric: str) -> None:
    root = make_classes(Path("made"), {f"c{index:02d}": count for index, count in enumerate(counts)})
    drafted = call("init", root)
    assert drafted.exit_code == 0, drafted.output
    gate = yaml.safe_load(Path("recipe.yaml").read_text())["gate"]
    assert gate.get("metric", "top1") == metric
    result = call("run", "recipe.yaml", "--set", "timing={blocks: 15, sessions: 3}")
    assert result.exit_code in (0, 4), result.output
    report = read_json(Path("runs") / "made" / "report.json")
    checks = {check["name"]: check for row in report["rows"] for check in row["checks"]}
    assert checks["min_accuracy"]["limit"] == gate["min_accuracy"] > 1 / len(counts)
    assert checks["min_accuracy"]["verdict"] == "pass"
