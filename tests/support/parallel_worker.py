"""Train a small network on stripes, as one of several processes or alone: parallel_worker.py FOLDER SETTINGS.json."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from compress.data import synthetic
from compress.images import samples
from compress.images.samples import Data
from compress.networks import checkpoint
from compress.process import distributed
from compress.training.config import FitConfig
from compress.training.context import Context
from compress.training.loop import fit
from compress.training.losses import cross_entropy
from runtimes import evalset
from runtimes.console import SilentConsole
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

SMALL = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def network(norm: bool) -> nn.Module:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(16)] if norm else [nn.Identity(), nn.Identity()]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, bias=False), norms[0], nn.ReLU(), nn.Conv2d(8, 16, 3, 2), norms[1], nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def main(folder: Path, settings: dict[str, dict[str, object]]) -> None:
    torch.set_num_threads(1)
    data = synthetic.load(synthetic.Config(images_per_class=20, size=32, noise=12))
    with distributed.process_group():
        for split in ("train", "val"):
            distributed.from_first(partial(prepare, folder / f"images-{split}", data, split))
        for name, fields in settings.items():
            (folder / name).mkdir(exist_ok=True)
            context = Context(
                name=name, classes=data.classes, train=data.train, preprocessing=SMALL, seed=0, device="cpu",
                folder=folder / name, target=Target("here"), teacher=lambda _: nn.Identity(),
                prepared=lambda split: evalset.load(folder / f"images-{split}"),
                subset=lambda split, count: evalset.load(folder / f"images-{split}").head(count),
                track=lambda epoch, values: None, console=SilentConsole(),
            )  # fmt: skip
            options = dict(fields)
            initial = network(bool(options.pop("norm", True)))
            trained = fit(initial, context, FitConfig(**options), cross_entropy(0.1))
            checkpoint.save(folder / name / str(distributed.rank()), trained)


def prepare(folder: Path, data: Data, split: str) -> int:
    """Write the images of a split."""
    return len(samples.write_evalset(folder, data.split(split), data.classes, SMALL, SilentConsole()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
