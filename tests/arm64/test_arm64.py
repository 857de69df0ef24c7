"""A bundle of a float32 and of an INT8 file on an emulated arm64 processor: it verifies and predicts.

Not part of the default tests: `make test-arm64` downloads the emulator. RUN=runs/mine tests the files of that run;
otherwise a small network is trained first. The emulator gives no realistic latency.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.bundle import write_bundle
from runtimes import bundle, evalset
from runtimes.artifact import Artifact
from runtimes.target import Target

ROOT = Path(__file__).parents[2]
EMULATED = ROOT / ".cache" / "arm64" / "python"
# With dot product instructions, as in the Orin and the Pi 5, and without, as in the Pi 4.
PROCESSORS = ("neoverse-n1", "cortex-a72")

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.timeout(900),  # a network is trained first, and emulation is slow
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
def test_a_bundle_answers_on_arm64_as_here(run_folder: Path, tmp_path: Path, precision: str, processor: str) -> None:
    paths = sorted((run_folder / "artifacts").glob(f"model-{precision}*.onnx"))
    assert paths, f"{run_folder} has no {precision} file"
    sample = evalset.load(run_folder / "sample")
    target = Target("arm64", instruction_set="arm64")
    for path in paths:
        tar, folder = tmp_path / f"{path.stem}.tar", tmp_path / path.stem
        write_bundle(Artifact.load(path), target, run_folder / "sample", sample, tar)
        bundle.unpack(tar, folder)
        verified = emulated(processor, folder / "run.pyz", "verify", "--json", tmp_path / "verify.json")
        assert verified.returncode == 0, verified.stderr
        found = json.loads((tmp_path / "verify.json").read_text())
        print(f"{path.name} on {processor}: {found['agreement']:.1%} of {found['images']} images have the same top-1; "
              f"largest logit difference {found['max_logit_difference']:.3g}")  # fmt: skip
        assert found["agreement"] == 1
        np.save(tmp_path / "image.npy", sample.pixels(np.asarray([0]))[0])
        predicted = emulated(processor, folder / "run.pyz", "predict", tmp_path / "image.npy")
        assert predicted.returncode == 0, predicted.stderr
        assert any(f"{name} " in predicted.stdout for name in sample.classes)


def emulated(processor: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the arm64 Python on an emulated processor."""
    environment = {**os.environ, "ARM64_CPU": processor}
    return subprocess.run([EMULATED, "-B", *command], capture_output=True, text=True, timeout=250, env=environment)
