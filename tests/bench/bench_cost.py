"""Hours that the recipes in recipes/imagenet need on this machine, from the measured images per second of their stages.

Each stage that trains runs for a few steps with the settings of its recipe, with random weights, on synthetic JPEGs of
500x375; the first steps are not counted. The workers decode these few batches ahead, so the rate is the GPU's; `make
bench-data` shows how many processors are needed to keep up with it. Hours are for all epochs over the 1,281,167 images
of ImageNet. The last line is JSON.

    make bench-cost
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from bench_data import make_photographs
from bench_train import CLASSES, Clock, Setting, context_of

from compress.images.samples import Sample
from compress.networks import weights
from compress.recipe import plugins, recipe

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 1_281_167
STEPS, WARMUP = 16, 6
MAX_BATCH = 256  # larger batches are measured at this size, as with accumulate


@dataclass(frozen=True)
class Row:
    """Rate and hours of a stage of a recipe."""

    recipe: str
    stage: str
    epochs: int
    images_per_s: float
    gpu_hours: float


class StageClock(Clock):
    """Clock that ignores progress of other work than training."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Count the steps of training, whose progress begins with the stage's name."""
        if what.startswith("bench"):
            super().progress(what, done, total)


def main() -> None:
    """Print a table, then JSON."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, {os.cpu_count()} processors, torch {torch.__version__}\n")
    print(f"{'recipe':<30}{'stage':<9}{'epochs':>7}{'images/s':>10}{'GPU hours':>11}")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        files = make_photographs(Path(name))
        for path in sorted((ROOT / "recipes/imagenet").glob("*.yaml")):
            loaded = recipe.load(path, [f"data.root={name}"])
            for stage in loaded.stages:
                if hasattr(stage, "epochs"):
                    rows.append(measure_stage(path.stem, loaded, stage, files, Path(name), device))
                    row = rows[-1]
                    print(f"{row.recipe:<30}{row.stage:<9}{row.epochs:>7}{row.images_per_s:>10.0f}"
                          f"{row.gpu_hours:>11.1f}", flush=True)  # fmt: skip
    print(json.dumps({"rows": [asdict(row) for row in rows], "where": where}))


def measure_stage(name: str, loaded: recipe.Recipe, stage: Any, files: list[Path], folder: Path, device: str) -> Row:
    """Run a stage for a few steps. stage: a Config of compress/stages."""
    size = min(stage.batch_size, MAX_BATCH)
    workers = min(16, os.cpu_count() or 1)
    setting = Setting(name, loaded.model, loaded.preprocessing.crop, size, STEPS, WARMUP, 1, workers, device)
    samples = tuple(
        Sample(str(index), files[index % len(files)], index % len(CLASSES)) for index in range(size * STEPS)
    )
    clock = StageClock(setting)
    network = weights.create(loaded.model.model_copy(update={"weights": None}), len(CLASSES), 0)
    teacher = copy.deepcopy(network)
    context = context_of(setting, samples, folder / f"{name}-{stage.stage}", clock, lambda _: teacher)
    short = stage.model_copy(update={"epochs": 1, "batch_size": size, "warmup_epochs": 0, "workers": workers})
    plugins.load("stages", stage.stage).run(network, context, short)
    hours = stage.epochs * IMAGES / clock.images_per_s / 3600
    return Row(name, stage.stage, stage.epochs, clock.images_per_s, hours)


if __name__ == "__main__":
    main()
