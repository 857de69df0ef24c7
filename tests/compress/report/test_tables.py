"""Tables of a report: what their cells say, and that they fit 80 columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_report import GATE, measurement, outputs

from compress.process.table import Table, print_table
from compress.report import tables
from compress.report.build import build
from compress.report.report import BASELINE_FILE, Report
from runtimes.errors import InputError
from runtimes.files import write_json
from runtimes.measure import Measurement


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A report with a baseline and an INT8 file that is judged inconclusive."""
    return build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), GATE))


def column(table: Table, name: str) -> list[str]:
    index = [heading.name for heading in table.columns].index(name)
    return [row[index] for row in table.rows]


def pruned(folder: Path, gate: dict[str, float] | None) -> Report:
    """A report of a run that pruned: the baseline, the pruned float32 file and its INT8 file."""
    made = outputs(folder, measurement("float32", 36, 1.5, 6_000_000), gate, others=(measurement("int8", 44, 1.0, 2),))
    baseline, *others = made.measurements
    return build(replace(made, measurements=[replace(baseline, artifact=BASELINE_FILE), *others]))


def test_a_gain_is_a_positive_change(tmp_path: Path) -> None:
    (table,) = tables.measured(pruned(tmp_path, None))
    assert column(table, "top-1 %") == ["90.00", "91.00", "89.00"]
    assert column(table, "change (pp)") == ["", "+1.00", "-1.00"]


def test_an_unchanged_accuracy_has_no_minus(tmp_path: Path) -> None:
    (table,) = tables.measured(build(outputs(tmp_path, measurement("int8", 40, 1.0, 1))))
    assert column(table, "change (pp)") == ["", "+0.00"]


@given(
    baseline=st.floats(0.001, 2000), others=st.lists(st.floats(0.001, 2000), min_size=1, max_size=4)
)  # fmt: skip
def test_the_speedup_is_the_ratio_of_the_latencies_beside_it(
    tmp_path_factory: pytest.TempPathFactory, baseline: float, others: list[float]
) -> None:
    made = build(outputs(tmp_path_factory.mktemp("made"), measurement("int8", 44, 1.0, 2)))
    first, last = made.rows
    rows = (replace(first, latency_ms_p50=baseline), *(replace(last, latency_ms_p50=latency) for latency in others))
    (table,) = tables.measured(
        replace(made, rows=rows, measurements=(made.measurements[0], *[made.measurements[1]] * len(others)))
    )
    latencies = [float(cell) for cell in column(table, "p50 ms")]
    assert column(table, "speed-up") == ["", *(f"{latencies[0] / latency:.2f}x" for latency in latencies[1:])]


@pytest.mark.parametrize(
    ("gate", "verdicts"),
    [(None, ["baseline", "no gate", "no gate"]), ({"max_size_ratio": 0.5}, ["baseline", "not judged", "pass"])],
)
def test_files_before_and_after_pruning_are_named(
    tmp_path: Path, gate: dict[str, float] | None, verdicts: list[str]
) -> None:
    (table,) = tables.measured(pruned(tmp_path, gate))
    assert column(table, "artifact") == ["baseline", "pruned", "int8"]
    assert column(table, "verdict") == verdicts


def test_without_pruning_float32_is_the_baseline(report: Report) -> None:
    (table,) = tables.measured(report)
    assert column(table, "artifact") == ["baseline", "int8"]
    assert table.title == "board: ort on cpu, 1 thread, batch 1"


def test_without_labels_agreement_is_shown(tmp_path: Path) -> None:
    (table,) = tables.measured(build(outputs(tmp_path, measurement("int8", 44, 1.0, 1), labelled=False)))
    assert "top-1 %" not in [heading.name for heading in table.columns]
    assert column(table, "same %") == ["", "99.00"]


def test_files_that_were_not_measured_have_an_estimate(report: Report) -> None:
    (table,) = tables.unmeasured(report)
    assert table.title == (
        "orin: not measured, no GPU is here; no engine, the board builds it; Jetson Orin Nano: estimate, not measured"
    )
    assert table.rows == (("int8", "1.25", "-", "0.810"),)


def test_every_table_fits_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pruned(tmp_path, GATE)
    wide = [replace(row, latency_ms_p99=123.45, size_bytes=123_450_000) for row in made.rows]
    for table in (*tables.measured(replace(made, rows=tuple(wide))), *tables.unmeasured(made), tables.gate(made)):
        print_table(table)
    printed = capsys.readouterr().out
    assert "inconclusive" in printed
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def on_board(folder: Path, name: str, measured: Measurement, **fields: str) -> None:
    write_json(folder / "boards" / name / "measurement.json", {**measured.to_json(), **fields})


def test_measurements_on_boards_have_a_table_each(tmp_path: Path, report: Report) -> None:
    sha256 = report.artifacts[0].manifest.sha256
    on_board(tmp_path, "pi", replace(measurement("float32", 40, 9.0, 8, "pi"), sha256=sha256))
    engine = replace(measurement("int8", 44, 3.0, 2, "orin"), artifact="model.engine", sha256="f" * 64)
    on_board(tmp_path, "orin", engine, deployed_sha256=sha256)  # the board built the engine from the deployed file
    shown = tables.boards(report, tmp_path)
    assert [table.title for table in shown.tables] == [
        "orin: ort on cpu, test, unknown", "pi: ort on cpu, test, unknown"
    ]  # fmt: skip
    assert [column(table, "artifact") for table in shown.tables] == [["model.engine"], ["model-float32.onnx"]]
    assert shown.notes == ()


@pytest.mark.parametrize("fields", [{}, {"deployed_sha256": "e" * 64}])
def test_the_measurement_of_an_artifact_that_was_replaced_is_left_out(
    tmp_path: Path, report: Report, fields: dict[str, str]
) -> None:
    on_board(tmp_path, "pi", measurement("int8", 44, 9.0, 2, "pi"), **fields)
    shown = tables.boards(report, tmp_path)
    assert shown.tables == ()
    assert shown.notes == ("boards/pi: measured an artifact that is no longer part of this run; deploy again",)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not a measurement"), ("[]", "not a measurement"), ("{}", "it has no sha256")]
)
def test_a_file_of_a_board_that_is_no_measurement_is_refused(
    tmp_path: Path, report: Report, content: str, message: str
) -> None:
    path = tmp_path / "boards/pi/measurement.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(InputError, match=f"measurement.json: .*{message}.*; deploy the bundle again"):
        tables.boards(report, tmp_path)


def test_plain_measurements_are_not_compared() -> None:
    table = tables.without_comparison(
        [measurement("int8", 44, 2.0, 2_000_000), replace(measurement("int8", 44, 2, 1), accuracy=None)]
    )
    assert table.title == ""
    assert column(table, "top-1 %") == ["89.00", "-"]
    assert column(table, "images/s") == ["500", "500"]
    assert column(table, "p99") == ["-", "-"]


IMBALANCED = {"metric": "balanced_accuracy", "max_drop_pp": 9, "min_recall": {"b": 0.8}}


def test_the_metric_of_the_gate_is_shown_in_place_of_top1(tmp_path: Path) -> None:
    made = build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), IMBALANCED))
    (table,) = tables.measured(made)
    assert column(table, "balanced %") == ["90.00", "89.00"]
    assert column(table, "change (pp)") == ["", "-1.00"]
    gate = tables.gate(made)
    assert column(gate, "limit") == ["max_drop_pp (balanced accuracy) 9", "min_recall.b 0.8"]
    print_table(gate)


def test_the_limit_on_a_class_is_marked(tmp_path: Path) -> None:
    made = build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), IMBALANCED))
    assert column(tables.per_class(made, made.measurements[1]), "min_recall") == ["", "0.8: pass"]
    without = tables.per_class(made, made.measurements[0])
    assert "min_recall" not in [heading.name for heading in without.columns]


def test_the_gate_has_a_row_per_limit(report: Report) -> None:
    table = tables.gate(report)
    assert column(table, "limit") == ["max_drop_pp 1", "min_speedup_p50 1.3", "max_size_ratio 0.5"]
    assert column(table, "verdict") == ["inconclusive", "pass", "pass"]


def test_accuracy_by_step_shows_changes_with_their_bounds(report: Report) -> None:
    table = tables.accuracy_by_step(report.accuracy_steps["board"])
    assert table.rows[0] == ("0-train", "90.00", "", "", "", "", "")
    name, top1, change, low, high, lost, gained = table.rows[1]
    assert (name, top1, change, lost, gained) == ("1-prune", "89.00", "-1.00", "4", "0")
    assert float(low) < -1 < float(high)


def test_per_class_has_the_confusion_matrix_for_few_classes(report: Report) -> None:
    table = tables.per_class(report, report.measurements[0])
    assert [heading.name for heading in table.columns][-2:] == ["predicted a", "predicted b"]
    assert table.rows[0] == ("a", "0.900", "0.900", "0.900", "180", "20")
    with pytest.raises(ValueError, match="have no labels"):
        tables.per_class(report, replace(report.measurements[0], accuracy=None))


def test_splits_show_the_first_classes_and_all_images(report: Report) -> None:
    assert tables.data_splits(report.data).rows[-1] == ("test", "200", "200", "400")
    names = tuple(f"class {index}" for index in range(30))
    many = replace(report.data, classes=names, images_per_class={"test": dict.fromkeys(names, 2)})
    table = tables.data_splits(many)
    assert (len(table.columns), table.rows[0][-1]) == (22, "60")


def test_durations_are_seconds(report: Report) -> None:
    assert tables.durations(report).rows == (("0-train", "12.5"),)
