"""Reports as typed records: they round-trip through JSON, and malformed ones are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_report import GATE, measurement, outputs

from compress.report import report
from compress.report.build import build
from compress.report.report import EpochRecord, Report
from runtimes.errors import InputError


@pytest.fixture
def made(tmp_path: Path) -> Report:
    """A report with a baseline and an INT8 file."""
    return build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), GATE))


@pytest.fixture
def content(made: Report) -> dict[str, Any]:
    """Its content as JSON holds it."""
    fields: dict[str, Any] = json.loads(json.dumps(made.to_json()))
    return fields


def test_a_report_round_trips_through_json(made: Report, content: dict[str, Any]) -> None:
    assert Report.from_json(content) == made
    assert json.loads(json.dumps(Report.from_json(content).to_json())) == content
    assert content["schema_version"] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "report.json: no such file; finish the run with: compress run RECIPE --out"),
        ("{", "report.json: not a report that can be read: .*; run the recipe again"),
        ("[]", "its content has the wrong form"),
        ("{}", "it has no schema_version"),
        ('{"schema_version": 99}', "it has schema version 99, this toolkit reads 1, 2, 3 and 4"),
        ('{"schema_version": []}', r"it has schema version \[\]"),
        ('{"schema_version": 1}', "it has no rows"),
        ('{"schema_version": 4}', "it has no artifacts"),
    ],
)
def test_a_file_that_is_no_report_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        report.read(tmp_path)
    assert "\n" not in str(error.value)


def _without_recipe(content: dict[str, Any]) -> None:
    del content["recipe"]


def _without_latency(content: dict[str, Any]) -> None:
    del content["rows"][1]["latency_ms_p50"]


def _wrong_top1(content: dict[str, Any]) -> None:
    content["rows"][0]["top1"] = "high"


def _wrong_verdict(content: dict[str, Any]) -> None:
    content["verdict"] = "maybe"


def _cut_without_kept(content: dict[str, Any]) -> None:
    del content["pruning"]["1-prune"][0]["cuts"][0]["kept"]


def _without_timing(content: dict[str, Any]) -> None:
    del content["measurements"][1]["timing"]


def _wrong_sha256(content: dict[str, Any]) -> None:
    content["artifacts"][0]["sha256"] = "1"


def _rows_in_another_order(content: dict[str, Any]) -> None:
    content["rows"].reverse()


def _nothing_measured(content: dict[str, Any]) -> None:
    content["rows"], content["measurements"] = [], []


def _wrong_target(content: dict[str, Any]) -> None:
    content["unmeasured"][0]["target"]["runtime"] = "none"


def _more_classes(content: dict[str, Any]) -> None:
    content["data"]["classes"].append("c")


def _flip_to_no_class(content: dict[str, Any]) -> None:
    content["flips"]["board"]["shown"][0]["after"] = 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_recipe, "it has no recipe"),
        (_without_latency, r"it has no rows\.1\.latency_ms_p50"),
        (_wrong_top1, r"rows\.0\.top1: Input should be a valid number"),
        (_wrong_verdict, "verdict: Input should be 'pass', 'regression' or 'inconclusive'"),
        (_cut_without_kept, r"1-prune\.0: cuts: it has no kept"),
        (_without_timing, r"measurements\.1: it has no timing"),
        (_wrong_sha256, r"artifacts\.0: sha256 is not 64 hexadecimal digits"),
        (_rows_in_another_order, "its rows and measurements are not of the same artifacts"),
        (_nothing_measured, "it has no rows"),
        (_more_classes, "model-float32.onnx has other classes than the data set's 3"),
        (_flip_to_no_class, "flips have other classes than the data set's 2"),
        (_wrong_target, r"unmeasured\.0\.target: .*must have a runtime of"),
    ],
)
def test_a_malformed_report_names_the_field(
    tmp_path: Path, content: dict[str, Any], damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    damage(content)
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        report.read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'report.json'}: ")
    assert "\n" not in str(error.value)


def test_rows_and_measurements_are_found_by_target(made: Report) -> None:
    assert made.targets == ("board",)
    assert [row.precision for row in made.rows_of("board")] == ["float32", "int8"]
    assert [one.precision for one in made.measurements_of("board")] == ["float32", "int8"]
    assert made.rows_of("phone") == made.measurements_of("phone") == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("model-baseline.onnx", True), ("model-baseline-sm87.engine", True), ("model-float32.onnx", False)],
)
def test_the_baseline_is_known_by_its_file_name(name: str, expected: bool) -> None:
    assert report.is_baseline(name) == expected


def test_an_epoch_keeps_loss_and_top1_of_the_history() -> None:
    history = {"epoch": 2, "lr": 0.1, "train_loss": 0.5, "val": {"loss": 0.6, "top1": 0.7, "confusion": []}}
    assert EpochRecord.from_history(history) == EpochRecord(2, 0.1, 0.5, 0.6, 0.7)
