"""The quick kinds of hostile inputs; make test-hostile tries all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import KINDS, tried


@pytest.mark.parametrize("kind", ["recipes", "code", "reports", "sweeps", "inventories", "folders", "settings"])
def test_each_input_ends_in_a_clear_error(kind: str, tmp_path: Path) -> None:
    problems = {case.name: problem for case in KINDS[kind](tmp_path) if (problem := tried(case))}
    assert problems == {}
