"""Training curves of several runs in one run folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """
name: curves
data: {name: synthetic, images_per_class: 8, size: 32}
preprocessing: {resize: 32, crop: 32, interpolation: bilinear, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
model: {arch: mobilenet_v2, width: 0.25}
stages: [{stage: train, epochs: 2, batch_size: 8, warmup_epochs: 0, augment: {hflip: false}}]
quantize: null
gate: null
tracking: [tensorboard]
targets: [{name: this-cpu, runtime: ort, threads: 1}]
timing: {warmup: 0, blocks: 2, runs_per_block: 1, sessions: 1}
"""


@pytest.mark.slow  # three runs
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_runs_with_other_settings_have_their_own_tensorboard_curves(tmp_path: Path) -> None:
    """Steps that go 1 2 1 2 in one TensorBoard run draw a curve that jumps back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for lr in ("0.01", "0.02", "0.01"):  # the third reuses the first's step
        subprocess.run(
            [sys.executable, "-m", "compress", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"),
             "--set", f"stages.0.lr={lr}"], check=True, cwd=ROOT,
        )  # fmt: skip
    folders = sorted((tmp_path / "run/tensorboard").iterdir())
    assert {folder.name for folder in folders} == {path.name for path in (tmp_path / "run/steps").glob("0-train-*")}
    assert len(folders) == 2
    for folder in folders:
        events = EventAccumulator(str(folder))
        events.Reload()
        assert [event.step for event in events.Scalars("0-train/train_loss")] == [1, 2]
