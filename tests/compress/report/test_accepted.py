"""Results of a run, for comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_report import LABELS, measurement, publish

from compress.report import accepted
from compress.verdict import accepted as accepted_files
from runtimes.errors import InputError
from runtimes.files import write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a report of two targets and splits.json."""
    phone = (measurement("float32", 40, 3.0, 8, "phone"), measurement("int8", 60, 1.0, 2, "phone"))
    publish(tmp_path, measurement("int8", 44, 1.0, 2), None, others=phone)
    splits = {"test": {f"{index}.png": int(label) for index, label in enumerate(LABELS)}}
    write_json(tmp_path / "run/splits.json", splits)
    return tmp_path / "run"


def test_a_result_is_the_last_artifact_with_the_baseline_as_reference(run: Path) -> None:
    results = accepted.of_run(run)
    assert (results.recipe, results.classes, results.labels) == ("test", ("a", "b"), tuple(LABELS.tolist()))
    board, phone = results.results
    assert (board.target.name, board.artifact, phone.target.name) == ("board", "model-int8.onnx", "phone")
    assert np.mean(np.asarray(phone.predicted) == LABELS) == 0.85
    assert np.median(board.latency_ms) == pytest.approx(1.0, rel=0.02)
    assert np.median(board.reference_ms) == pytest.approx(2.0, rel=0.02)
    assert (board.size_bytes, board.reference_bytes, board.sessions) == (2, 8_000_000, 15)


def test_accepted_results_are_written_and_read_again(run: Path, tmp_path: Path) -> None:
    path = accepted.accept(run, tmp_path / "accepted.json")
    assert path == tmp_path / "accepted.json"
    assert accepted.load(path) == accepted.load(run) == accepted.of_run(run)


def test_the_default_file_is_named_after_the_recipe(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert accepted.accept(run, None) == accepted_files.default_path("test") == Path("recipes/accepted/test.json")
    assert (tmp_path / "recipes/accepted/test.json").exists()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ("{}", "it has no test"),
        ("[]", "splits.json: can't be read with the report"),
        ('{"test": {"a.png": 0}}', "board: 400 predictions, 1 labels"),
    ],
)
def test_splits_that_do_not_fit_the_report_are_refused(run: Path, splits: str, message: str) -> None:
    (run / "splits.json").write_text(splits)
    with pytest.raises(InputError, match=message):
        accepted.of_run(run)


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"report\.json: no such file; finish the run"):
        accepted.load(tmp_path)
