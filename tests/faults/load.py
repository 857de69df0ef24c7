"""Measure how memory, time and open files grow with the number of images, classes, stages, steps and trials.

    images       evaluate 2,000 and 10,000 images with 2,000 classes: peak memory does not grow
    classes      run with 2,000 classes and 20,000 images: time, peak memory, size of the report
    handles      open files before and after 200 sessions of a measurement
    stages       validate a recipe of 200 stages: time
    steps        run folder with 1,000 steps: time of a cached step
    checkpoints  save the training state after each of 1,080 batches: the last take no longer than the first, two stay
    sweep        50 trials, each a run: the last ten take no longer than the first ten, and neither the memory nor the
                 open files of the sweep's process grow

The last line is JSON. Takes under an hour on two cores.

    make test-load
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from compress.models import mobilenet_v2
from compress.pipeline.steps import Step, Steps
from compress.recipe import recipe
from export.to_onnx import to_onnx
from runtimes import evalset, measure
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.console import SilentConsole
from runtimes.files import write_bytes
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

# VmHWM is the peak of the process itself; getrusage of a child includes its parent's memory before exec.
CHILD = """
import re, sys
from pathlib import Path
from compress.cli.main import commands
try:
    commands(sys.argv[1:], standalone_mode=False)
except SystemExit as ended:
    if ended.code:
        raise
print(re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1])
"""
SIDE, CLASSES, SESSIONS, STAGES, STEPS, TRIALS = 32, 2000, 200, 200, 1000, 50
FEW, MANY = 2_000, 10_000
ALLOWED = {
    "image_mib": 32, "classes_s": 300, "classes_mib": 2048, "classes_report_mib": 12, "handles": 0, "stages_s": 20,
    "step_ms": 20, "checkpoint_ratio": 1.25, "checkpoint_files": 2, "trial_ratio": 1.25, "trial_mib": 32,
    "trial_handles": 0,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "data": {"name": "synthetic", "classes": 3, "images_per_class": 40, "size": 24, "noise": 8},
    "preprocessing": {"resize": 24, "crop": 24, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    "device": "cpu",
    "model": {"arch": "mobilenet_v2", "width": 0.25},
    "stages": [{"stage": "train", "epochs": 1, "warmup_epochs": 0, "batch_size": 8, "lr": 0.001, "workers": 0}],
    "quantize": None,
    "targets": [{"name": "this-cpu"}],
    "timing": {"warmup": 1, "blocks": 2, "runs_per_block": 1, "sessions": 1},
}


def main() -> None:
    """Print each figure and its limit, then JSON; exit with 1 if one exceeds its limit."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="compress-load-") as name:
        for part in (images_and_handles, classes, stages, steps, checkpoints, trials):
            for key, value in part(Path(name)).items():
                figures[key] = round(value, 3)
                print(f"{key:<20} {figures[key]:g} (allowed {ALLOWED[key]:g})", flush=True)
    print(json.dumps(figures))
    sys.exit(any(value > ALLOWED[key] for key, value in figures.items()))


def images_and_handles(folder: Path) -> dict[str, float]:
    """Return the growth of memory with images and of open files with sessions."""
    artifact = artifact_in(folder)
    few, many = (evaluated(folder, artifact, count) for count in (FEW, MANY))
    before = open_files()
    measure.measure([artifact], Target("here"), None, Timing(0, SESSIONS, 1, SESSIONS), SilentConsole())
    return {"image_mib": many - few, "handles": open_files() - before}


def artifact_in(folder: Path) -> Artifact:
    """Write a small network of 2,000 classes."""
    path = folder / "model.onnx"
    network = mobilenet_v2.build(mobilenet_v2.Config(width=0.25), CLASSES).eval()
    torch.manual_seed(0)
    file = to_onnx(network, path, SIDE, opset=18, batch=None)
    names = tuple(f"class-{index}" for index in range(CLASSES))
    artifact = file.artifact(Preprocessing(SIDE, SIDE), names)
    artifact.save_manifest()
    return artifact


def evaluated(folder: Path, artifact: Artifact, count: int) -> float:
    """Return the peak memory in MiB of `compress evaluate` on `count` images."""
    rng, images = np.random.default_rng(0), folder / f"images-{count}"
    pixels = (rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(count))
    labels, names = rng.integers(0, CLASSES, count), tuple(map(str, range(count)))
    evalset.write(images, pixels, labels, names, artifact.manifest.labels, artifact.manifest.preprocessing)
    return ran("evaluate", str(artifact.path), "--evalset", str(images))[0]


def classes(folder: Path) -> dict[str, float]:
    """Return time, peak memory and size of the report of a run with 2,000 classes."""
    data = {**SMALL["data"], "classes": CLASSES, "images_per_class": 10}
    path = written(folder / "classes.yaml", data=data, stages=[{**SMALL["stages"][0], "batch_size": 64}])
    mib, seconds = ran("run", path, "--out", str(folder / "classes"))
    size = max((folder / "classes" / f"report.{kind}").stat().st_size for kind in ("json", "html", "md"))
    return {"classes_s": seconds, "classes_mib": mib, "classes_report_mib": size / 2**20}


def stages(folder: Path) -> dict[str, float]:
    """Return the time to validate a recipe of 200 stages."""
    path = written(folder / "long.yaml", stages=json.loads(json.dumps(SMALL["stages"] * STAGES)))
    start = time.monotonic()
    assert len(recipe.load(Path(path)).stages) == STAGES
    return {"stages_s": time.monotonic() - start}


def write_network(step: Step, index: int) -> None:
    """Write a small file as a step's result."""
    write_bytes(step.folder / "network.safetensors", b"x")


def steps(folder: Path) -> dict[str, float]:
    """Return the time of a cached step among 1,000."""
    cached = Steps(folder / "steps", SilentConsole(), lambda stage, epoch, values: None)
    for index in range(STEPS):
        cached.run(write_network, f"{index}-train", index=index)
    before, start = open_files(), time.monotonic()
    for index in range(STEPS):
        cached.run(write_network, f"{index}-train", index=index)
    assert open_files() == before
    return {"step_ms": 1000 * (time.monotonic() - start) / STEPS}


def checkpoints(folder: Path) -> dict[str, float]:
    """Save the state after each of 1,080 batches; return the time of the last 100 over the first and the files left."""
    data = {**SMALL["data"], "images_per_class": 400}
    stage = {**SMALL["stages"][0], "batch_size": 2, "epochs": 3, "checkpoint_minutes": 1e-9}
    out = folder / "often"
    command = [sys.executable, "-m", "compress", "run", written(folder / "often.yaml", data=data, stages=[stage])]
    saved_at: dict[int, float] = {}
    with subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for path in out.glob("steps/0-train-*/training-state.safetensors"):
                with contextlib.suppress(FileNotFoundError):  # just replaced
                    saved_at.setdefault(path.stat().st_mtime_ns, time.monotonic())
            time.sleep(0.005)
    assert process.returncode == 0
    assert len(saved_at) > STEPS
    took = np.diff(list(saved_at.values()))
    return {"checkpoint_ratio": float(np.median(took[-100:]) / np.median(took[:100])),
            "checkpoint_files": len(list(out.glob("steps/0-train-*/training-state*")))}  # fmt: skip


def trials(folder: Path) -> dict[str, float]:
    """Return the growth of time, memory and open files over a sweep of 50 trials."""
    small = written(folder / "small.yaml")
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"recipe": small, "vary": {"seed": list(range(TRIALS))}}))
    command = [sys.executable, "-m", "compress", "sweep", str(path), "--out", str(folder / "sweep")]
    ends, mib, handles = [time.monotonic()], [], []
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.match(r"trial \d+: ", line):
                ends.append(time.monotonic())
                mib.append(status(process.pid, "VmRSS"))
                handles.append(open_files(process.pid))
    assert process.returncode == 0
    assert len(mib) == TRIALS
    took = np.diff(ends)
    return {"trial_ratio": float(np.median(took[-10:]) / np.median(took[:10])), "trial_mib": mib[-1] - mib[4],
            "trial_handles": handles[-1] - handles[4]}  # fmt: skip


def written(path: Path, **changes: Any) -> str:
    """Write the small recipe with changed sections, and return its path."""
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return str(path)


def ran(*arguments: str) -> tuple[float, float]:
    """Return the peak memory in MiB and the seconds of a command, which must succeed."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024, time.monotonic() - start


def status(pid: int, key: str) -> float:
    """Return a field of /proc/PID/status in MiB."""
    match = re.search(rf"{key}:\s+([0-9]+)", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) / 1024


def open_files(pid: int | None = None) -> int:
    """Return the number of open files of a process, by default of this one."""
    return len(os.listdir(f"/proc/{pid or 'self'}/fd"))


if __name__ == "__main__":
    main()
