"""The command report."""

from __future__ import annotations

from pathlib import Path

from command_line import assert_one_line, call
from made_report import GATE, measurement, publish


def test_report_of_a_folder_without_one_is_one_line(tmp_path: Path) -> None:
    assert_one_line(call("report", tmp_path), 2, "report.json: no such file; finish the run with: compress run")


def test_the_documents_are_rebuilt_and_the_tables_printed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), GATE)
    before = {name: (run / name).read_text() for name in ("report.html", "report.md")}
    for name in before:
        (run / name).unlink()
    result = call("report", run)
    assert result.exit_code == 0
    assert {name: (run / name).read_text() for name in before} == before
    lines = result.stdout.splitlines()
    assert any(
        line.startswith("board: max_drop_pp 1: change -1.00 (") and line.endswith("inconclusive") for line in lines
    )
    assert lines[-2:] == ["verdict: inconclusive", f"report: {run / 'report.html'}"]


def test_a_run_without_a_gate_says_so(tmp_path: Path) -> None:
    publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), None)
    assert "verdict: none, the recipe has no gate" in call("report", tmp_path / "run").stdout
