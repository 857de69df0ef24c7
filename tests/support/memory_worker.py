"""Load 50,000 images in training batches, resuming several times, and print the memory used, as JSON.

Usage: memory_worker.py FOLDER. Prints the memory of all processes in bytes after every 10,000 images.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from compress.images.archives import Slice
from compress.images.samples import Sample
from compress.networks import checkpoint
from compress.training.batches import TrainingBatches
from compress.training.config import Augment, FitConfig
from compress.training.context import Context
from runtimes.console import SilentConsole
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

IMAGES, PART, BATCH = 50_000, 2_500, 50


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(folder / "image.jpg")
    size = (folder / "image.jpg").stat().st_size
    samples = tuple(Sample(f"train/{index}", Slice(str(folder / "image.jpg"), 0, size), 0) for index in range(IMAGES))
    context = Context(
        name="memory", classes=("one", "two"), train=samples, preprocessing=Preprocessing(32, 32), seed=0, device="cpu",
        folder=folder, target=Target("here"), teacher=lambda _: nn.Identity(), prepared=lambda split: 1 / 0,
        subset=lambda split, count: 1 / 0, track=lambda epoch, values: None, console=SilentConsole(),
    )  # fmt: skip
    settings = FitConfig(batch_size=BATCH, workers=2, augment=Augment(crop_scale=(0.3, 1.0), policy="trivialaugment"))
    state = {"weights": torch.zeros(1_000_000)}
    used = []
    with TrainingBatches(context, settings) as batches:
        for start in range(0, IMAGES, PART):  # like a run that is stopped and resumed repeatedly
            part = batches.epoch(0, start // BATCH)
            for _ in range(PART // BATCH):
                next(part)
            checkpoint.save_tensors(folder / "state.safetensors", state, {})
            state, _ = checkpoint.load_tensors(folder / "state.safetensors")
            if (start + PART) % 10_000 == 0:
                used.append(memory())
    print(json.dumps(used))


def memory() -> int:
    """Return the proportional set size of this process and its children, in bytes: shared pages are counted once.

    Mapped files are excluded: how much of a shared library counts depends on other programs that use it.
    """
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return sum(_proportional(pid) for pid in ["self", *children])


def _proportional(pid: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
