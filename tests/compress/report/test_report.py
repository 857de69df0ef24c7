"""Reports: rows, gate and documents made of measurements with chosen latencies and answers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_report import GATE, PARITY, PLAN, RUNS, measurement, publish

from compress.cli.report import print_report
from compress.pruning import tables as pruning_tables
from compress.report import documents, report
from compress.report import tables as report_tables
from compress.verdict.gate import Gate
from runtimes.errors import InputError
from runtimes.measure import Measurement


@pytest.mark.parametrize(
    ("wrong", "latency_ms", "size_bytes", "verdict"),
    [
        (40, 1.0, 2_000_000, "pass"),
        (80, 1.0, 2_000_000, "regression"),  # accuracy
        (40, 2.0, 2_000_000, "regression"),  # latency
        (40, 1.0, 5_000_000, "regression"),  # size
        (44, 1.0, 2_000_000, "inconclusive"),  # a drop of 1.0 on 400 images is not known to be at most 1.0
    ],
)
def test_the_gate_judges_each_limit(
    tmp_path: Path, wrong: int, latency_ms: float, size_bytes: int, verdict: str
) -> None:
    made = publish(tmp_path, measurement("int8", wrong, latency_ms, size_bytes), GATE)
    assert made.verdict == verdict
    assert [row.verdict for row in made.rows] == [None, verdict]


def test_a_row_compares_with_float32_on_the_same_target(tmp_path: Path) -> None:
    row = publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), None).rows[1]
    assert row.top1_drop_pp is not None
    assert row.speedup_p50 is not None
    assert row.top1_drop_pp.value == pytest.approx(1.0)
    assert row.speedup_p50.value == pytest.approx(2.0, rel=0.05)
    assert row.speedup_p50.low <= row.speedup_p50.value <= row.speedup_p50.high


def test_without_a_gate_there_is_no_verdict(tmp_path: Path) -> None:
    assert publish(tmp_path, measurement("int8", 40, 1.0, 1), None).verdict is None


def test_every_table_fits_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), GATE)
    print_report(tmp_path / "run")
    printed = capsys.readouterr().out.splitlines()
    assert any("inconclusive" in line for line in printed)
    assert max(len(line) for line in printed if "report:" not in line) <= 80
    assert not any("…" in line for line in printed)


def test_the_documents_hold_what_a_reader_looks_for(tmp_path: Path) -> None:
    publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), GATE)
    text = (tmp_path / "run" / "report.md").read_text()
    for wanted in ("# test: inconclusive", "max_top1_drop_pp: 1", "bad.png: not an image", "| a |",
                   "| nearest rounding | 20.1 | 0.900 | yes |",
                   "| stem | depthwise | 8 | int7 | 3 | 31.5 | 0.250 | 0.500 |",
                   "| int8 | integer | 1 | 0.25 | QLinearConv |",
                   "| 1-prune | 89.00 | -1.00 | ", "- board: model-int8.onnx: 300 runs, 0 of them over 1.5 times p50",
                   "![accuracy against latency](accuracy_latency.svg)"):  # fmt: skip
        assert wanted in text
    assert ElementTree.parse(tmp_path / "run" / documents.PICTURE).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert (tmp_path / "run" / "artifacts" / "model-float32.onnx").read_bytes() == b"model"


@pytest.mark.parametrize(("precision", "step", "line"), [
    ("float32", {"step": "export", "parity_with_torch": PARITY}, "against torch"),
    ("float32", {"step": "self-contained", "parity_with_plain": PARITY}, "against the file without what was put"),
    ("float16", {"step": "float16", "parity_with_given": {**PARITY, "sqnr_db": 61.5}}, "before it became float16"),
    ("int8", {"step": "verify", "parity_with_float32": PARITY, "runs": RUNS}, "against float32"),
])  # fmt: skip
def test_every_kind_of_file_is_compared_with_what_it_was_made_of(
    tmp_path: Path, precision: str, step: dict[str, Any], line: str
) -> None:
    publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), None)
    path = tmp_path / "run" / "report.json"
    content = json.loads(path.read_text())
    content["artifacts"][0] |= {"precision": precision, "lineage": [step]}
    path.write_text(json.dumps(content))
    documents.write(tmp_path / "run")
    (found,) = [one for one in (tmp_path / "run" / "report.md").read_text().splitlines() if "  - against" in one]
    assert line in found
    assert "on 3 calibration images: top-1 agreement 1.0000, largest logit difference 0.1" in found
    assert found.endswith(", SQNR of the logits 61.5 dB" if precision == "float16" else "difference 0.1")


def test_report_json_round_trips_and_names_its_schema(tmp_path: Path) -> None:
    made = publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), GATE)
    content = report.read(tmp_path / "run")
    assert content == json.loads(json.dumps(dataclasses.asdict(made)))
    assert content["schema_version"] == report.SCHEMA_VERSION
    assert Measurement.from_json(content["measurements"][1]).precision == "int8"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; finish the run"),
        ("{", "not a report"),
        ('{"schema_version": 99}', "schema version 99, this toolkit reads 1 and 2"),
    ],
)
def test_a_report_that_can_not_be_read_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match=message):
        report.read(tmp_path)


def test_a_gate_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one of"):
        Gate()


def test_the_report_tells_what_was_cut_and_what_the_clock_said(tmp_path: Path) -> None:
    publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), None)
    text = (tmp_path / "run/report.md").read_text()
    assert "ms: 0.600 asked, 0.580 predicted, 0.610 measured, of the network before." in text
    assert "| features.1 | 32 -> 24 | -12.5 % | 0.062 ms |" in text
    assert "features.2" not in text


def test_a_plan_without_a_clock_says_so() -> None:
    assert pruning_tables.outcome({**PLAN, "measured": None}).endswith("not measured")


def test_a_target_that_is_not_here_is_told_with_its_estimate(tmp_path: Path) -> None:
    publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), None)
    ((title, table),) = report_tables.elsewhere(report.read(tmp_path / "run")).items()
    assert title == (
        "orin: not measured, no NVIDIA GPU is here; no engine, the board builds it; "
        "Jetson Orin Nano: estimate, not measured"
    )
    assert table[1] == ["model-int8-tensorrt.onnx", "1.25", "-", "0.81"]
    assert title in (tmp_path / "run/report.md").read_text()


@pytest.mark.parametrize(("wrong", "verdict"), [(40, "pass"), (48, "inconclusive"), (80, "regression")])
def test_without_labels_agreement_is_judged_and_shown(tmp_path: Path, wrong: int, verdict: str) -> None:
    made = publish(tmp_path, measurement("int8", wrong, 1.0, 1), {"min_agreement": 0.97}, labelled=False)
    baseline, int8 = made.rows
    assert made.verdict == verdict
    assert (baseline.top1, int8.top1, int8.top1_drop_pp) == (None, None, None)
    assert int8.agreement is not None
    assert int8.agreement.value == pytest.approx(1 - (wrong - 40) / 400)
    ((_, table),) = report_tables.measured(report.read(tmp_path / "run")).items()
    assert table[0][:2] == ["artifact", "same %"]
    assert table[2][1] == f"{100 * int8.agreement.value:.2f}"
    assert "Where the points went" not in (tmp_path / "run/report.html").read_text()
    changed = "the images have no labels" in (tmp_path / "run/report.html").read_text()
    assert changed == (wrong != 40)
