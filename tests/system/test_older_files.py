"""What the toolkit wrote before it had a waterfall, channels and measured warm-up is read, or refused in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from compress.cli.main import commands
from compress.pipeline.run_folder import RunFolder
from compress.report import report
from compress.verdict import accepted
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import ArtifactError, CompressError, InputError
from runtimes.measure import Measurement
from runtimes.metrics import confusion_rows

OLDER = Path(__file__).parents[1] / "samples" / "schema-1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Give a copy of an older run folder, as far as it is kept."""
    return Path(shutil.copytree(OLDER, tmp_path / "run"))


def newer(path: Path) -> None:
    """Make a file one of a version that is still to come."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema_version": 9}))


def test_an_older_report_is_printed_written_and_compared(run: Path) -> None:
    done = CliRunner().invoke(commands, ["report", str(run)])
    assert done.exit_code == 0, done.output
    assert "baseline" in done.stdout
    assert "Verdict: none" in (run / "report.html").read_text()
    again = CliRunner().invoke(commands, ["check", str(run), "--against", str(run / "accepted.json")])
    assert again.exit_code in (0, 4), again.output  # 4: so few images can't show that nothing was lost
    assert "max_drop_pp" in again.stdout


def test_older_measurements_have_one_session_and_no_conditions() -> None:
    for fields in json.loads((OLDER / "report.json").read_text())["measurements"]:
        one = Measurement.from_json(fields)
        assert (one.warmup_runs, one.steady, one.energy_mj) == (None, None, "unknown")
        assert one.accuracy is not None
        rows = confusion_rows(one.accuracy.confusion, len(one.accuracy.recall))
        assert rows == fields["accuracy"]["confusion"]  # a matrix then


def test_an_older_run_folder_is_gone_on_with(run: Path) -> None:
    name = json.loads((run / "run.json").read_text())["recipe"]
    assert RunFolder(run, name, fresh=False).path == run


def test_an_older_manifest_and_accepted_result_are_read() -> None:
    fields = json.loads((OLDER / "manifest.json").read_text())
    assert Manifest.from_json(fields).precision == "float32"
    assert accepted.read(OLDER / "accepted.json").recipe == "smoke"


def test_newer_files_are_refused_with_both_versions(run: Path) -> None:
    for name in ("report.json", "run.json", "accepted.json", "manifest.json"):
        newer(run / name)
    (run / "model.onnx").write_bytes(b"")
    (run / "manifest.json").rename(run / "model.onnx.json")
    calls: list[tuple[type[CompressError], object]] = [
        (InputError, lambda: report.read(run)),
        (InputError, lambda: RunFolder(run, "smoke", fresh=False)),
        (InputError, lambda: accepted.read(run / "accepted.json")),
        (ArtifactError, lambda: Artifact.load(run / "model.onnx")),
    ]
    for kind, call in calls:
        with pytest.raises(kind, match="schema version 9"):
            call()  # type: ignore[operator]
