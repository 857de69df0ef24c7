"""GPU hours that the recipes in recipes/imagenet need on this machine: images per second of their stages, measured.

Each stage that trains runs for a few steps as its recipe says, with random weights, on made JPEGs of 500x375; the
first steps do not count. So few batches are decoded ahead while the first ones are learned: the rate is the GPU's, and
it takes the processors that `make bench-data` tells to keep up with it. Hours are for all epochs over the 1,281,167
images of ImageNet. The last line is JSON.

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
MOST_AT_ONCE = 256  # images; more is done in parts, as accumulate would


@dataclass(frozen=True)
class Row:
    """What a stage of a recipe takes."""

    recipe: str
    stage: str
    epochs: int
    images_per_s: float
    gpu_hours: float


class StageClock(Clock):
    """Takes the time of one stage's training alone."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Ignore progress that is not the stage's training."""
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
            given = recipe.load(path, [f"data.root={name}"])
            for stage in given.stages:
                if hasattr(stage, "epochs"):
                    rows.append(measured(path.stem, given, stage, files, Path(name), device))
                    row = rows[-1]
                    print(f"{row.recipe:<30}{row.stage:<9}{row.epochs:>7}{row.images_per_s:>10.0f}"
                          f"{row.gpu_hours:>11.1f}", flush=True)  # fmt: skip
    print(json.dumps({"rows": [asdict(row) for row in rows], "where": where}))


def measured(name: str, given: recipe.Recipe, stage: Any, files: list[Path], folder: Path, device: str) -> Row:
    """Run a stage for a few steps."""
    size = min(stage.batch_size, MOST_AT_ONCE)
    workers = min(16, os.cpu_count() or 1)
    setting = Setting(name, given.model, given.preprocessing.crop, size, STEPS, WARMUP, 1, workers, device)
    samples = tuple(
        Sample(str(index), files[index % len(files)], index % len(CLASSES)) for index in range(size * STEPS)
    )
    clock = StageClock(setting)
    network = weights.create(given.model.model_copy(update={"weights": None}), len(CLASSES), 0)
    teacher = copy.deepcopy(network)
    context = context_of(setting, samples, folder / f"{name}-{stage.stage}", clock, lambda _: teacher)
    short = stage.model_copy(update={"epochs": 1, "batch_size": size, "warmup_epochs": 0, "workers": workers})
    plugins.load("stages", stage.stage).run(network, context, short)
    hours = stage.epochs * IMAGES / clock.images_per_s / 3600
    return Row(name, stage.stage, stage.epochs, clock.images_per_s, hours)


if __name__ == "__main__":
    main()
