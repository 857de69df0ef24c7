from __future__ import annotations

from pathlib import Path

import pytest

from compress.process import code_digest

PRESENTATION = ("compress/cli/run.py", "compress/report/report.py", "compress/sweep/search.py", "compress/doctor.py")
RESULTS = ("compress/networks/weights.py", "compress/pipeline/run.py", "runtimes/measure.py", "export/to_onnx.py",
           "compress/verdict/statistics.py", "compress/process/distributed.py")  # fmt: skip


def test_the_digest_follows_code_that_changes_results_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest() -> str:
        return code_digest.code_digest.__wrapped__()

    monkeypatch.setattr(code_digest, "ROOT", tmp_path)
    for name in (*PRESENTATION, *RESULTS):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("a = 1")
    before = digest()
    for name in PRESENTATION:
        (tmp_path / name).write_text("a = 2")
        assert digest() == before
    for name in RESULTS:
        (tmp_path / name).write_text("a = 2")
        assert digest() != before
        (tmp_path / name).write_text("a = 1")
    assert digest() == before
