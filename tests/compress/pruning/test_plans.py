"""Tests of stored pruning plans."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from compress.pruning.plans import Cut, PruningPlan

CUTS = (Cut("stem", ("stem", "next"), 4, (0, 3), 0.25, 0.5), Cut("next", ("next",), 2, (0, 1), 0.0, 0.0))
STORED = {  # the form that plan-N.json and report.json have had since the first version
    "cuts": [
        {"group": "stem", "layers": ["stem", "next"], "before": 4, "kept": [0, 3], "lost": 0.25, "saved": 0.5},
        {"group": "next", "layers": ["next"], "before": 2, "kept": [0, 1], "lost": 0.0, "saved": 0.0},
    ],
    "unit": "ms", "cost_before": 2.0, "asked": 0.5, "predicted": 0.52, "measured": 0.51,
}  # fmt: skip


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    for measured in (0.51, None):
        plan = PruningPlan(CUTS, "ms", 2.0, 0.5, 0.52, measured)
        plan.save(tmp_path / "plan-1.json")
        content = json.loads((tmp_path / "plan-1.json").read_text())
        assert content == {**STORED, "measured": measured}
        assert PruningPlan.from_json(content) == plan


@pytest.mark.parametrize("key", ["cuts", "unit", "cost_before", "asked", "predicted", "measured"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"it has no {key}"):
        PruningPlan.from_json({name: value for name, value in STORED.items() if name != key})


def test_reading_plans_and_settings_does_not_import_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import compress.pruning.config, compress.pruning.tables"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
