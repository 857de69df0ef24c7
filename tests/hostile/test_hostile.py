"""The kinds that are quick; make test-hostile tries all, and counts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import KINDS, tried


@pytest.mark.parametrize("kind", ["recipes", "reports", "sweeps", "inventories"])
def test_each_input_is_answered_by_a_line(kind: str, tmp_path: Path) -> None:
    problems = {case.name: problem for case in KINDS[kind](tmp_path) if (problem := tried(case))}
    assert problems == {}
