"""Images per second of our training batches against torchvision's pipeline, on JPEGs like ImageNet's.

Both read the same files, crop to 224 px and mirror, and take turns. The reference is Pillow with transforms.v2 in
float32, normalised image by image. Our loader yields uint8 batches, which are normalised on the device; the columns `on
the CPU` include normalisation on the CPU. The synthetic JPEGs are 500x375 and about 33 kB, like ImageNet's;
PHOTOS=folder uses the JPEGs in a folder instead. The last line is JSON: the figures of one process without workers.

    make bench-data [PHOTOS=folder]
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from compress.images.samples import Sample
from compress.training.batches import TrainingBatches, normalize
from compress.training.config import Augment, FitConfig
from compress.training.context import Context
from runtimes.console import SilentConsole
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

IMAGES, BATCH, ROUNDS = 256, 32, 5
QUALITY = 75
PREPROCESSING = Preprocessing()
SCALE = (0.08, 1.0)


class Reference(Dataset[tuple[torch.Tensor, int]]):
    """Images with the transforms of torchvision's training reference."""

    def __init__(self, files: list[Path], side: int = PREPROCESSING.crop) -> None:
        """Build the transforms. side: of the crops, in pixels."""
        self._files = files
        self._transform = v2.Compose([
            v2.RandomResizedCrop(side, scale=SCALE), v2.RandomHorizontalFlip(), v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
        ])  # fmt: skip

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self._files[index]) as image:
            return self._transform(image.convert("RGB")), 0


def make_photographs(folder: Path) -> list[Path]:
    """Write 32 JPEGs of 500x375 and about 33 kB, whose spectrum falls like that of photographs."""
    rng = np.random.default_rng(0)
    distance = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.fftfreq(500)[None]) + 1 / 500
    for index in range(32):
        noise = rng.normal(size=(3, 375, 500))
        values = np.fft.ifft2(np.fft.fft2(noise) / distance**1.5).real
        values[1:] = values[:1] + 0.3 * values[1:]  # the channels of photographs are correlated
        pixels = (128 + 50 * values / values.std()).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{index:02}.jpg", quality=QUALITY)
    return sorted(folder.glob("*.jpg"))


def rate(batches: Iterable[torch.Tensor]) -> float:
    """Return images per second of one epoch."""
    start = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    return count / (time.perf_counter() - start)


def compare(files: list[Path], folder: Path, workers: int) -> list[float]:
    """Return the median images per second of ours, ours normalised on the CPU, and the reference.

    The first round is warm-up.
    """
    settings = FitConfig(batch_size=BATCH, workers=workers, augment=Augment(crop_scale=SCALE))
    samples = tuple(Sample(str(index), path, 0) for index, path in enumerate(files))
    context = Context(
        name="bench", classes=("one",), train=samples, preprocessing=PREPROCESSING, seed=0, device="cpu",
        folder=folder, target=Target("here"), teacher=lambda network: torch.nn.Identity(),
        prepared=_unused, subset=_unused, track=_unused, console=SilentConsole(),
    )  # fmt: skip
    loader = DataLoader(
        Reference(files), BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    with TrainingBatches(context, settings) as own_loader:
        every: list[Callable[[int], Iterable[torch.Tensor]]] = [
            lambda epoch: (pixels for pixels, _ in own_loader.epoch(epoch)),
            lambda epoch: (normalize(pixels, PREPROCESSING, "cpu") for pixels, _ in own_loader.epoch(epoch)),
            lambda epoch: (pixels for pixels, _ in loader),
        ]
        rates = [[rate(batches(epoch)) for batches in every] for epoch in range(ROUNDS + 1)]
    return [statistics.median(column) for column in zip(*rates[1:], strict=True)]


def _unused(split: object, count: object = 0) -> EvalSet:
    raise AssertionError(f"{split}: crops are decoded each time")


def main() -> None:
    """Print a table, then JSON."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = os.environ.get("PHOTOS")
        files = sorted(Path(photos).glob("*.jpg")) if photos else make_photographs(folder)
        size = statistics.mean(path.stat().st_size for path in files)
        files = (files * IMAGES)[:IMAGES]
        print(f"{len(set(files))} JPEGs of {size / 1000:.0f} kB, images per second\n")
        print(f"{'workers':>8} {'ours':>8} {'on the CPU':>11} {'torchvision':>12} {'ratio':>6} {'on the CPU':>11}")
        rows = []
        for workers in (0, os.cpu_count() or 1):
            ours, normalized, theirs = compare(files, folder, workers)
            rows.append({
                "workers": workers, "images_per_s": ours, "normalized_images_per_s": normalized,
                "reference_images_per_s": theirs, "ratio": ours / theirs, "normalized_ratio": normalized / theirs,
            })  # fmt: skip
            print(f"{workers:>8} {ours:>8.0f} {normalized:>11.0f} {theirs:>12.0f} {ours / theirs:>6.2f} "
                  f"{normalized / theirs:>11.2f}", flush=True)  # fmt: skip
    print(json.dumps({**rows[0], "rows": rows}))


if __name__ == "__main__":
    main()
