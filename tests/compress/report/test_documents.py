"""The documents of a run hold what a reader looks for."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_report import GATE, PARITY, RUNS, measurement, outputs

from compress.images.samples import LeftOut, Rejected
from compress.report import documents
from compress.report.build import build
from compress.report.report import BASELINE_FILE, Report
from runtimes.artifact import Precision
from runtimes.files import write_json
from runtimes.lineage import read_lineage


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A report with a baseline and an INT8 file that is judged inconclusive."""
    return build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), GATE))


def text_of(report: Report, folder: Path) -> str:
    documents.write(report, folder)
    return (folder / "report.md").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "# test: inconclusive",
        "| max_drop_pp 1 | board | change -1.00 | -2.21 | -0.32 | inconclusive |",
        "- bad.png (train): bad.png: not an image",
        "| nearest rounding | 20.1 | 0.900 | yes |",
        "| stem | depthwise | 8 | int7 | 3 | 31.5 | 0.250 | 0.500 |",
        "| int8 | integer | 1 | 0.25 | QLinearConv |",
        "| 1-prune | 89.00 | -1.00 | -2.21 | -0.32 | 4 | 0 |",
        "![accuracy against latency](accuracy_latency.svg)",
        "| a | 0.900 | 0.900 | 0.900 | 180 | 20 |",
        "| features.1 | 32 -> 24 | -12.5 % | 0.062 ms |",
        "| int8 | 1.25 | - | 0.810 |",
        "| 0-train | 12.5 |",
    ],
)
def test_the_markdown_holds_each_line(report: Report, tmp_path: Path, line: str) -> None:
    assert line in text_of(report, tmp_path).splitlines()


def test_notes_and_files_that_were_left_out_are_shown(report: Report, tmp_path: Path) -> None:
    data = replace(report.data, left_out=(LeftOut("extension .heic", 2, "train/a/1.heic"),), folders={"val": "Valid"})
    text = text_of(replace(report, notes=("weights: classifier replaced",), data=data), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "- val: Valid" in text.splitlines()
    assert "- weights: classifier replaced" in text.splitlines()
    line = "left out: 2 files: extension .heic, for example train/a/1.heic"
    assert f"- {line}" in text.splitlines()
    for shown in (line, "<li>val: Valid</li>", "weights: classifier replaced"):
        assert shown in page


def test_names_of_files_are_no_tags(report: Report, tmp_path: Path) -> None:
    left_out = (LeftOut("no extension", 1, "train/<img src=x>"),)
    data = replace(report.data, left_out=left_out, set_aside=(Rejected("<b>.png", "train", "damaged"),))
    lines = text_of(replace(report, data=data), tmp_path).splitlines()
    assert "- left out: 1 file: no extension, for example train/&lt;img src=x>" in lines
    assert "- &lt;b>.png (train): damaged" in lines
    assert "<img src=x>" not in (tmp_path / "report.html").read_text()


def test_the_gate_shows_its_metric_limits_on_classes_and_notes(tmp_path: Path) -> None:
    gate = {"metric": "balanced_accuracy", "max_drop_pp": 0.4, "min_recall": {"b": 0.8}}
    text = text_of(build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), gate)), tmp_path)
    page = (tmp_path / "report.html").read_text()
    lines = text.splitlines()
    assert any(line.startswith("| max_drop_pp (balanced accuracy) 0.4 | board | change -1.00 |") for line in lines)
    assert "| b | 0.890 | 0.890 | 0.890 | 0.8: pass | 22 | 178 |" in lines
    (note,) = [line.removeprefix("- ") for line in lines if line.startswith("- board: max_drop_pp 0.4: ")]
    assert "only a gain can pass" in note
    assert "The metric of the gate is balanced accuracy; top-1 is 90.00 % (baseline on board), 89.00 % (int8" in text
    for shown in (
        note,
        "max_drop_pp (balanced accuracy) 0.4</th>",
        'class="pass">0.8: pass</td>',
        "min_recall</button>",
    ):
        assert shown in page


@pytest.mark.parametrize(("file", "sentence"), [
    ("model-float32.onnx", "The baseline is the float32 network;"),
    (BASELINE_FILE, "The baseline is the float32 network before pruning;"),
])  # fmt: skip
def test_the_baseline_is_explained(tmp_path: Path, file: str, sentence: str) -> None:
    made = outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000))
    first, last = made.measurements
    report = build(replace(made, measurements=[replace(first, artifact=file), last]))
    assert sentence in text_of(report, tmp_path)
    assert "### baseline on board" in text_of(report, tmp_path)


def test_groups_that_keep_all_channels_are_not_listed(report: Report, tmp_path: Path) -> None:
    assert "features.2" not in text_of(report, tmp_path)


def test_the_picture_is_an_svg_file(report: Report, tmp_path: Path) -> None:
    documents.write(report, tmp_path)
    assert ElementTree.parse(tmp_path / documents.PICTURE).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(("precision", "step", "reference"), [
    ("float32", {"step": "export", "parity_with_torch": PARITY}, "PyTorch"),
    ("float32", {"step": "self-contained", "parity_with_plain": PARITY}, "the file without built-in preprocessing"),
    ("float16", {"step": "float16", "from": "2" * 64, "parity_with_given": {**PARITY, "sqnr_db": 61.5}},
     "the file before conversion to float16"),
    ("int8", {"step": "verify", "parity_with_float32": PARITY, "runs": RUNS}, "float32"),
])  # fmt: skip
def test_each_file_is_compared_with_the_one_it_was_made_from(
    report: Report, tmp_path: Path, precision: Precision, step: dict[str, Any], reference: str
) -> None:
    (file,) = report.artifacts
    manifest = replace(file.manifest, precision=precision, lineage=read_lineage([step]))
    text = text_of(replace(report, artifacts=(replace(file, manifest=manifest),)), tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("  - compared with")]
    assert line.startswith(f"  - compared with {reference} on 3 calibration images: top-1 agreement 1.0000, ")
    assert "largest logit difference 0.1" in line
    assert line.endswith(", SQNR of the logits 61.5 dB" if precision == "float16" else "difference 0.1")


def test_without_labels_there_is_no_accuracy_by_stage(tmp_path: Path) -> None:
    for wrong in (40, 44):
        report = build(outputs(tmp_path, measurement("int8", wrong, 1.0, 1), labelled=False))
        assert "Accuracy by stage" not in text_of(report, tmp_path)
        page = (tmp_path / "report.html").read_text()
        assert "Accuracy by stage" not in page
        assert ("the images have no labels" in page) == (wrong != 40)


def test_boards_are_shown_or_noted(report: Report, tmp_path: Path) -> None:
    note = "boards/pi: measured an artifact that is no longer part of this run; deploy again"
    path = tmp_path / "boards/pi/measurement.json"
    measured = measurement("int8", 44, 9.0, 2, "pi").to_json()
    write_json(path, measured)
    assert note in text_of(report, tmp_path)
    assert note in (tmp_path / "report.html").read_text()
    write_json(path, {**measured, "deployed_sha256": report.artifacts[0].manifest.sha256})
    text = text_of(report, tmp_path)
    assert note not in text
    assert "**pi: ort on cpu, test, unknown**" in text


def test_no_lines_are_glued_together(report: Report, tmp_path: Path) -> None:
    """A heading, a table and a paragraph are separated by empty lines."""
    lines = text_of(report, tmp_path).splitlines()
    for before, line in pairwise(lines):
        if line.startswith(("#", "**")):
            assert before == "", line
        if before.startswith("|"):
            assert line == "" or line.startswith("|"), line
