"""Upgrading report.json of older schema versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress.report import schema
from compress.report.report import Report

SAMPLES = Path(__file__).parents[2] / "samples"


def sample(version: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SAMPLES / f"schema-{version}" / "report.json").read_text())
    return content


@pytest.mark.parametrize("version", [1, 2])
def test_older_reports_become_typed_and_keep_their_figures(version: int) -> None:
    content = sample(version)
    report = Report.from_json(content)
    assert report.schema_version == 4
    assert (report.notes, report.data.left_out, report.data.folders) == ((), (), {})
    assert [row.latency_ms_p50 for row in report.rows] == [row["latency_ms_p50"] for row in content["rows"]]
    assert [list(one.predicted) for one in report.measurements] == [one["predicted"] for one in content["measurements"]]
    (step,) = content["training"]
    assert [epoch.val_top1 for epoch in report.training[step]] == [
        epoch["val"]["top1"] for epoch in content["training"][step]
    ]
    assert Report.from_json(report.to_json()) == report


def test_version_1_lacks_parts_of_version_2() -> None:
    report = Report.from_json(sample(1))
    assert (report.accuracy_steps, report.flips, report.channels, report.unmeasured) == ({}, {}, {}, ())
    assert [(row.agreement, row.val_metrics) for row in report.rows] == [(None, {}), (None, {})]


def test_version_2_has_other_names() -> None:
    content = sample(2)
    report = Report.from_json(content)
    steps, falls = report.accuracy_steps["this-cpu"], content["falls"]["this-cpu"]
    assert [(step.name, step.top1, step.gained) for step in steps] == [
        (fall["name"], fall["top1"], fall["won"]) for fall in falls
    ]
    flips = report.flips["this-cpu"]
    assert flips.counts == {"lost": 1, "gained": 1, "both wrong": 0, "changed": 0}
    assert [(flip.kind, flip.name) for flip in flips.shown] == [("lost", "a"), ("gained", "b")]
    assert [(file.reason, file.target.name) for file in report.unmeasured] == [
        (file["why"], file["target"]["name"]) for file in content["elsewhere"]
    ]
    assert all(file.no_engine_reason is None for file in report.unmeasured)


def test_version_3_has_no_notes() -> None:
    upgraded = schema.upgraded({"schema_version": 3, "data": {"classes": ["a", "b"]}, "rows": []})
    data = {"classes": ["a", "b"], "left_out": [], "folders": {}}
    assert upgraded == {"schema_version": 4, "data": data, "rows": [], "notes": [], "metric": "top1"}


@pytest.mark.parametrize(("top1", "val_top1"), [(0.9, 0.8), (None, None)])
def test_version_3_has_top1_only(top1: float | None, val_top1: float | None) -> None:
    row = {"top1": top1, "val_top1": val_top1, "top1_drop_pp": None}
    (upgraded,) = schema.upgraded({"schema_version": 3, "data": {}, "rows": [row]})["rows"]
    assert upgraded == {
        "top1": top1, "top1_drop_pp": None, "metric_drop_pp": None, "notes": [],
        "metrics": {} if top1 is None else {"top1": top1},
        "val_metrics": {} if val_top1 is None else {"top1": val_top1},
    }  # fmt: skip


def test_the_current_version_is_left_as_it_is() -> None:
    content = {"schema_version": 4, "rows": []}
    assert schema.upgraded(content) is content


def test_unknown_versions_are_refused() -> None:
    with pytest.raises(ValueError, match="it has schema version 5, this toolkit reads 1, 2, 3 and 4"):
        schema.upgraded({"schema_version": 5})
