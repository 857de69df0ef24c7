"""The command sweep, with made-up runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from command_line import assert_one_line, call
from sweep_worker import made_run

from compress.sweep import search

SMOKE = Path(__file__).parents[3] / "recipes" / "smoke.yaml"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of four trials whose runs are made up."""
    monkeypatch.setattr(search, "_run_recipe", made_run)
    path = tmp_path / "try.yaml"
    vary = {"stages.0.lr": [0.01, 0.1], "model.width": [0.5, 1.0]}
    path.write_text(yaml.safe_dump({"recipe": str(SMOKE), "vary": vary}))
    return path


def test_the_table_of_all_trials_is_printed(sweep: Path, tmp_path: Path) -> None:
    result = call("sweep", sweep, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "try: grid, 4 trials" in result.stdout
    assert f"recipes of the Pareto front: {tmp_path / 'out' / 'front'}" in result.stdout
    assert [*(tmp_path / "out" / "front").glob("*.yaml")]
    assert (tmp_path / "out" / "sweep.log").exists()


def test_the_default_folder_is_named_after_the_file(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("sweep", sweep).exit_code == 0
    assert (tmp_path / "sweeps" / "try" / "sweep.md").exists()


def test_a_wrong_sweep_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"recipe": str(SMOKE), "vary": {}}))
    assert_one_line(call("sweep", tmp_path / "bad.yaml"), 2, "bad.yaml: vary: must have at least one item")
