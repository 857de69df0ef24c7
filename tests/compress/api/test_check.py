"""`compress.check`: verdicts of runs and accepted files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_report import measurement, publish
from made_results import accepted, broken, result, written

import compress
from runtimes.errors import InputError


@pytest.mark.parametrize(("share", "verdict"), [(0.0, "pass"), (0.008, "inconclusive"), (0.05, "regression")])
def test_accepted_files_are_compared(tmp_path: Path, share: float, verdict: str) -> None:
    old = written(tmp_path / "old.json", accepted())
    new = written(tmp_path / "new.json", accepted(result(broken(share))))
    compared = compress.check(new, str(old))
    assert compared.verdict == verdict
    assert repr(compared).splitlines()[-1] == f"verdict: {verdict}"
    assert json.loads(json.dumps(compared.to_json()))["verdict"] == verdict
    assert {row[-1] for row in compared.table().rows} >= {verdict}


def test_limits_are_keywords(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", accepted())
    new = written(tmp_path / "new.json", accepted(result(broken(0.05))))
    assert compress.check(new, old, max_drop_pp=50).verdict == "pass"
    assert {row[1] for row in compress.check(new, old, max_slowdown=None).table().rows} == {
        "max_drop_pp",
        "class_recall",
    }
    with pytest.raises(InputError, match=r"max_drop: unknown key; did you mean 'max_drop_pp'\?"):
        compress.check(new, old, max_drop=1)


def test_reports_and_run_folders_are_compared(tmp_path: Path) -> None:
    report = publish(tmp_path, measurement("int8", 40, 1.0, 2_000_000), None)
    assert report.folder == tmp_path / "run"
    (tmp_path / "run" / "splits.json").write_text(
        json.dumps({"test": {f"{index}.png": index % 2 for index in range(400)}})
    )
    assert compress.check(report, tmp_path / "run").verdict == "pass"
    with pytest.raises(InputError, match="the report has no run folder; give the folder of the run"):
        compress.check(replace(report, folder=None), tmp_path / "run")
    with pytest.raises(InputError, match=r"test\.json: no such file; write it with: compress accept RUN"):
        compress.check(report)
