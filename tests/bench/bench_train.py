"""Images per second of the training loop against a bare PyTorch loop: same network, batch, precision and optimizer.

    loop            both get the same batches from our loader; they differ in the schedule, progress, checks for
                    termination and checkpoints
    loop and data   the bare loop uses torchvision's pipeline (Pillow, transforms.v2, float32) with as many workers

Both train fresh copies of a network on synthetic JPEGs of 500x375 and take turns; the first steps of a turn are warm-up
and not counted. On a CPU: MobileNetV2 at 96 px in float32. On a GPU: MobileNetV2 and ResNet-50 at 224 px in bfloat16.
A ratio is the median over rounds, with the least and the greatest. The last line is JSON with the figures of row 1.

    make bench-train
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from bench_data import Reference, make_photographs
from torch import nn
from torch.utils.data import DataLoader

from compress.images.samples import Sample, write_evalset
from compress.models import mobilenet_v2, resnet
from compress.networks import weights
from compress.training.batches import TrainingBatches, normalize
from compress.training.config import Augment, FitConfig
from compress.training.context import Context
from compress.training.loop import fit
from compress.training.losses import cross_entropy
from compress.training.optimization import make_optimizer
from runtimes.console import Console, SilentConsole
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

CLASSES = tuple(str(label) for label in range(10))
CROPS = Augment(crop_scale=(0.08, 1.0))
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Setting:
    """Network, images and steps of a comparison; of `steps` steps the first `warmup` are not counted.

    model: a Config of compress/models.
    """

    network: str
    model: Any
    side: int
    batch_size: int
    steps: int
    warmup: int
    rounds: int
    workers: int
    device: str


@dataclass(frozen=True)
class Row:
    """One row of the table; ratios are ours / reference."""

    network: str
    what: str
    images_per_s: float
    reference_images_per_s: float
    ratio: float
    least: float
    greatest: float


class Clock:
    """Console that measures images per second after the warm-up, when the device has finished the steps."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._start, self.images_per_s = setting, 0.0, 0.0

    def say(self, line: str) -> None:
        """Show nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Note the time after the warm-up and after the last step."""
        if done == self._setting.warmup:
            self._start = self._now()
        elif done == self._setting.steps:
            counted = self._setting.batch_size * (self._setting.steps - self._setting.warmup)
            self.images_per_s = counted / (self._now() - self._start)

    def _now(self) -> float:
        if self._setting.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def main() -> None:
    """Print a table, then JSON."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        shared = {"side": 224, "batch_size": 256, "steps": 40, "warmup": 12, "rounds": 3,
                  "workers": min(16, os.cpu_count() or 1), "device": device}  # fmt: skip
        settings = [Setting("MobileNetV2", mobilenet_v2.Config(), **shared),
                    Setting("ResNet-50", resnet.Config(depth=50), **shared)]  # fmt: skip
    else:
        settings = [Setting("MobileNetV2", mobilenet_v2.Config(), 96, 32, 24, 4, 7, 2, device)]
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}\n")
    print(f"{'network':<13}{'what':<15}{'ours, img/s':>12}{'bare':>8}{'ratio':>7}  from to")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        files = make_photographs(Path(name))
        for setting in settings:
            for what in ("loop", "loop and data"):
                rows.append(compare(setting, what, files, Path(name)))
                row = rows[-1]
                print(f"{row.network:<13}{row.what:<15}{row.images_per_s:>12.0f}{row.reference_images_per_s:>8.0f}"
                      f"{row.ratio:>7.3f}  {row.least:.3f} {row.greatest:.3f}", flush=True)  # fmt: skip
    print(json.dumps({**asdict(rows[0]), "rows": [asdict(row) for row in rows], "where": where}))


def compare(setting: Setting, what: str, files: list[Path], folder: Path) -> Row:
    """Train with both in turns; the first turn of each is warm-up."""
    count = setting.batch_size * setting.steps
    samples = tuple(Sample(str(index), files[index % len(files)], index % len(CLASSES)) for index in range(count))
    network = weights.create(setting.model, len(CLASSES), 0)
    own_rates, reference_rates = [], []
    for number in range(setting.rounds + 1):
        rates = [
            turn(copy.deepcopy(network), setting, samples, folder / f"{setting.network}-{what}-{number}")
            for turn in (train_ours, train_bare if what == "loop" else train_bare_with_torchvision)
        ]
        if number:
            own_rates.append(rates[0])
            reference_rates.append(rates[1])
    ratios = [own / reference for own, reference in zip(own_rates, reference_rates, strict=True)]
    return Row(setting.network, what, statistics.median(own_rates), statistics.median(reference_rates),
               statistics.median(ratios), min(ratios), max(ratios))  # fmt: skip


def train_ours(network: nn.Module, setting: Setting, samples: tuple[Sample, ...], folder: Path) -> float:
    """Return images per second of `fit`."""
    clock = Clock(setting)
    context = context_of(setting, samples, folder, clock)
    fit(network, context, config_of(setting), cross_entropy(0.1))
    return clock.images_per_s


def train_bare(network: nn.Module, setting: Setting, samples: tuple[Sample, ...], folder: Path) -> float:
    """Return images per second of a minimal training loop with our loader."""
    context = context_of(setting, samples, folder, SilentConsole())
    with TrainingBatches(context, config_of(setting)) as batches:
        normalized = (
            (normalize(pixels, context.preprocessing, setting.device), labels) for pixels, labels in batches.epoch(0)
        )
        return bare_loop(network, setting, normalized)


def train_bare_with_torchvision(
    network: nn.Module, setting: Setting, samples: tuple[Sample, ...], folder: Path
) -> float:
    """Return images per second of a minimal training loop with torchvision's pipeline."""
    files = [sample.source for sample in samples if isinstance(sample.source, Path)]
    loader = DataLoader(
        Reference(files, setting.side), setting.batch_size, num_workers=setting.workers, persistent_workers=True,
        pin_memory=setting.device == "cuda",
    )  # fmt: skip
    return bare_loop(network, setting, on_device(loader, setting.device))


def on_device(loader: Batches, device: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Move batches as torchvision's reference does."""
    for images, labels in loader:
        yield images.to(device, non_blocking=True, memory_format=torch.channels_last), labels


def bare_loop(network: nn.Module, setting: Setting, batches: Batches) -> float:
    """Train without schedule, progress and checkpoints; return images per second."""
    clock = Clock(setting)
    network = network.to(setting.device).to(memory_format=torch.channels_last).train()
    optimizer, loss = make_optimizer(network, config_of(setting)), nn.CrossEntropyLoss(label_smoothing=0.1)
    for step, (images, labels) in enumerate(batches, 1):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16) if setting.device == "cuda" else nullcontext():
            logits = network(images)
        loss(logits.float(), labels.to(setting.device, non_blocking=True)).backward()
        optimizer.step()
        clock.progress("", step, setting.steps)
    return clock.images_per_s


def config_of(setting: Setting) -> FitConfig:
    """Return the settings of both loops."""
    return FitConfig(
        epochs=1, batch_size=setting.batch_size, optimizer="sgd", lr=0.01, warmup_epochs=0, schedule="cosine",
        augment=CROPS, workers=setting.workers,
    )  # fmt: skip


def context_of(
    setting: Setting,
    samples: tuple[Sample, ...],
    folder: Path,
    console: Console,
    teacher: Callable[[Any], nn.Module] = lambda _: nn.Identity(),
) -> Context:
    """Return a context whose val split has eight images."""
    folder.mkdir(exist_ok=True)
    preprocessing = Preprocessing(setting.side, setting.side)

    def val(split: str, count: int = 0) -> EvalSet:
        return write_evalset(folder / split, samples[:8], CLASSES, preprocessing, SilentConsole())

    return Context(
        name="bench", classes=CLASSES, train=samples, preprocessing=preprocessing, seed=0, device=setting.device,
        folder=folder, target=Target("here"), teacher=teacher, prepared=val, subset=val,
        track=lambda epoch, values: None, console=console,
    )  # fmt: skip


if __name__ == "__main__":
    main()
