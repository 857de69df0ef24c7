"""More of everything than usual: do memory and time grow as stated, and is every file closed?

    images       evaluate 2,000 and 10,000 images: peak memory grows by the logits (4 bytes an image and class) and what
                 Python adds, not by the images
    classes      a network of 2,000 classes is evaluated, and its report written
    handles      files open before and after 200 sessions of a measurement
    stages       a recipe of 200 stages is checked in seconds
    checkpoints  a run folder with 1,000 steps: what a step costs when it is there already

The last line is JSON.

    make test-load
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from compress import recipe
from compress.models import mobilenet_v2
from compress.run_folder import RunFolder
from export.to_onnx import INPUT_NAME, OUTPUT_NAME, to_onnx
from runtimes import evalset, measure
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.files import sha256_file, write_bytes
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

# A process's own peak: what getrusage tells of a child holds its parent's, from before it was another program.
CHILD = """
import re, sys
from pathlib import Path
from compress.cli import commands
commands(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1])
"""
SIDE, CLASSES, SESSIONS, STAGES, STEPS = 32, 2000, 200, 200, 1000
FEW, MANY = 2_000, 10_000
ALLOWED = {"image_mib": 40 + (MANY - FEW) * CLASSES * 4 * 3 / 2**20, "handles": 0, "stages_s": 20.0, "step_ms": 20.0}


def main() -> None:
    """Print the figures, then JSON; exit with 1 where one is above what is allowed."""
    with tempfile.TemporaryDirectory(prefix="compress-load-") as name:
        folder = Path(name)
        artifact = artifact_in(folder)
        few, many = (evaluated(folder, artifact, count) for count in (FEW, MANY))
        for count, (mib, seconds) in ((FEW, few), (MANY, many)):
            print(f"images       {count}: {mib:.0f} MiB, {seconds:.1f} s")
        figures = {
            "image_mib": round(many[0] - few[0], 1),
            "handles": handles(artifact),
            "stages_s": round(checked(folder), 2),
            "step_ms": round(step_ms(folder), 3),
        }
    for key, value in figures.items():
        print(f"{key:<12} {value} (allowed {ALLOWED[key]:g})")
    print(json.dumps(figures))
    sys.exit(any(value > ALLOWED[key] for key, value in figures.items()))


def artifact_in(folder: Path) -> Artifact:
    """Write a small network of 2,000 classes."""
    path = folder / "model.onnx"
    network = mobilenet_v2.build(mobilenet_v2.Config(width=0.25), CLASSES).eval()
    torch.manual_seed(0)
    to_onnx(network, path, SIDE, opset=18, batch=None)
    names = tuple(f"class-{index}" for index in range(CLASSES))
    manifest = Manifest(
        sha256_file(path), path.stat().st_size, "onnx", "float32", INPUT_NAME, (None, 3, SIDE, SIDE), OUTPUT_NAME,
        Preprocessing(SIDE, SIDE), names, 18,
    )  # fmt: skip
    made = Artifact(path, manifest)
    made.save_manifest()
    return made


def evaluated(folder: Path, artifact: Artifact, count: int) -> tuple[float, float]:
    """Return the peak memory in MiB and the seconds of `compress evaluate` on so many images."""
    rng, images = np.random.default_rng(0), folder / f"images-{count}"
    pixels = (rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(count))
    labels, names = rng.integers(0, CLASSES, count), tuple(map(str, range(count)))
    evalset.write(images, pixels, labels, names, artifact.manifest.labels, artifact.manifest.preprocessing)
    start = time.monotonic()
    command = [sys.executable, "-c", CHILD, "evaluate", str(artifact.path), "--evalset", str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024, time.monotonic() - start


def handles(artifact: Artifact) -> int:
    """Return by how many open files a measurement of many sessions grows."""
    before = len(os.listdir("/proc/self/fd"))
    measure.measure([artifact], Target("here"), None, Timing(0, SESSIONS, 1, SESSIONS), lambda *_: None)
    return len(os.listdir("/proc/self/fd")) - before


def checked(folder: Path) -> float:
    """Return how long a recipe of 200 stages takes to be checked."""
    stages = [{"stage": "train", "epochs": 1, "warmup_epochs": 0}] * STAGES
    content = {"data": {"name": "synthetic"}, "model": {"arch": "mobilenet_v2"}, "stages": stages}
    (folder / "long.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(content))))
    start = time.monotonic()
    assert len(recipe.load(folder / "long.yaml").stages) == STAGES
    return time.monotonic() - start


def step_ms(folder: Path) -> float:
    """Return what a step costs that is there already, among 1,000."""
    steps = RunFolder(folder / "run", "load", fresh=False)
    for index in range(STEPS):
        steps.step(f"{index}-train", [index], (), lambda path: write_bytes(path / "network.safetensors", b"x"))
    before, start = len(os.listdir("/proc/self/fd")), time.monotonic()
    for index in range(STEPS):
        steps.step(f"{index}-train", [index], (), lambda path: None)
    assert len(os.listdir("/proc/self/fd")) == before
    return 1000 * (time.monotonic() - start) / STEPS


if __name__ == "__main__":
    main()
