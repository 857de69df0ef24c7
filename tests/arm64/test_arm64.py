"""An exported float32 and INT8 file on an emulated arm64 processor: it answers as it does here.

Not among the default tests: `make test-arm64` fetches what it needs. RUN=runs/mine takes the files of that run, else a
small network is trained first. What the emulator can't tell is speed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.parity import FLOAT32_TOLERANCE, compare
from runtimes import evalset
from runtimes.artifact import Artifact
from runtimes.measure import evaluate
from runtimes.target import Target

ROOT = Path(__file__).parents[2]
EMULATED = ROOT / ".cache" / "arm64" / "python"
IMAGES = 64
# With dot product instructions, as in the Orin and the Pi 5, and without, as in the Pi 4.
PROCESSORS = ("neoverse-n1", "cortex-a72")

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.timeout(900),  # a network is trained first, and emulation takes its time
    pytest.mark.skipif(not EMULATED.exists(), reason="the emulated Python is not set up: make test-arm64"),
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run."""
    if os.environ.get("RUN"):
        return Path(os.environ["RUN"]).resolve()
    folder = tmp_path_factory.mktemp("smoke") / "run"
    command = [sys.executable, "-m", "compress", "run", "recipes/smoke.yaml", "--out", folder]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_arm64_answers_as_x86(run_folder: Path, tmp_path: Path, precision: str, processor: str) -> None:
    folder = max(run_folder.glob("steps/images-test-*"), key=lambda path: path.stat().st_mtime)
    images = evalset.load(folder).head(IMAGES)
    paths = sorted((run_folder / "artifacts").glob(f"model-{precision}*.onnx"))
    assert paths, f"{run_folder} has no {precision} file"
    for path in paths:
        emulated = answers(path, folder, processor, tmp_path / "logits.npy")
        here = evaluate(Artifact.load(path), Target("here"), images)
        parity = compare(here, emulated)
        print(f"{path.name} on {processor}: {parity.agreement:.1%} of {parity.images} images have the same top-1; "
              f"largest logit difference {parity.max_logit_difference:.3g}")  # fmt: skip
        assert (emulated.argmax(1) == here.argmax(1)).all()
        if precision == "float32":
            assert parity.max_logit_difference <= FLOAT32_TOLERANCE * max(1.0, float(np.abs(here).max()))


def answers(path: Path, folder: Path, processor: str, output: Path) -> np.ndarray:
    """Return the logits that the `runtimes` package gives under emulation."""
    command = [EMULATED, "-B", Path(__file__).with_name("answer.py"), path, folder, str(IMAGES), output]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ARM64_CPU": processor}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    sys.stderr.write(finished.stderr)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return np.load(output)
