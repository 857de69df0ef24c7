"""Compare pruning to a measured latency with other pruning methods and ready-made small networks, on ELPV.

The baseline is MobileNetV2 at 96 px, trained as by the first stage of
recipes/mobilenet_int8_long.yaml. All pruned networks
are trained further in the same way: 10 epochs of the recipe's stage distill, with the baseline as the teacher. Methods:

    baseline          the unpruned network, trained further like the others
    compress 0.60     the stage prune, to 0.60 of the latency of the float32 file in ONNX Runtime, and so on
    torch-pruning     MagnitudePruner of Torch-Pruning with one ratio for all layers (its default), multiples of 8
    torch-p. global   the same with one threshold for the whole network
    uniform           every group keeps the same share of its channels, the most important ones: without the search
    V2 0.5, V3-Small  ready-made networks, trained from scratch for as many epochs as the others in total

The ratios of torch-pruning and uniform are found by bisection so that their *measured* latency is nearest to that of
compress (8 tries, each the median of three measurements). All networks are pruned once, at the start, which takes about
ten minutes; run nothing else in that time. Seeds differ in the training after pruning. All channel counts are multiples
of 8.

Columns: share is the latency divided by the baseline's; p50 in ms with one thread and batch 1, the files of a seed
interleaved in one process; top-1 in % on the 654 images of the test split in ONNX Runtime; +- is the standard deviation
over seeds; "compress - it" is the difference of top-1 in percentage points, paired over images and seeds, with its 95 %
interval (bootstrap over images).

The last line of the output is JSON. A seed takes about 25 minutes on two cores. Trained networks are stored in
runs/bench_prune and reused until that folder is removed.

    make bench-prune [SEEDS=3]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning
from torch import nn

from compress.images import samples
from compress.images.samples import Data
from compress.models import mobilenet_v2, mobilenet_v3
from compress.networks import checkpoint, weights
from compress.networks.layers import count_macs, layer_shapes
from compress.process.console import Terminal
from compress.pruning.channels import find_groups
from compress.pruning.costs import CostModel, build_cost_model
from compress.pruning.importance import importance_batches, unit_scores
from compress.pruning.planning import apply_plan, make_pruning_plan
from compress.pruning.surgery import remove_units_checked
from compress.recipe import plugins, recipe
from compress.recipe.recipe import Recipe
from compress.stages import distill, prune, train
from compress.training.context import Context
from compress.training.losses import cross_entropy
from compress.training.teaching import train as train_network
from export.to_onnx import to_onnx
from runtimes import environment, evalset
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.measure import measure
from runtimes.target import Target

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "runs/bench_prune"
SHARES = (0.6, 0.4, 0.25)
STEP = 8
TRIES = 8  # of the bisection
REPEATS = 3  # measurements of each try; the median counts
EPOCHS = 10  # of training after pruning
TIMING = Timing(warmup=10, blocks=40, runs_per_block=8)
TARGET = Target("bench", threads=1, batch=1)
BASELINE = "baseline"
OURS = "compress"
BOOTSTRAPS = 2000

Pruner = Callable[[nn.Module, float], nn.Module]  # (network, share of channels to remove) -> pruned network


@dataclass(frozen=True)
class Result:
    """One measured network of one seed. correct: by test image."""

    network: str
    latency_ms: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]
    macs: int
    size_bytes: int


@dataclass(frozen=True)
class Row:
    """One line of the table, over all seeds.

    top1, top1_std: shares of images. ours_gain_pp: top-1 of ours minus this network's, with low and high bound.
    """

    network: str
    latency_ratio: float
    latency_ms_p50: float
    top1: float
    top1_std: float
    seeds: int
    macs: int
    size_bytes: int
    ours_gain_pp: tuple[float, float, float] | None


class Trainer:
    """Trains, prunes and exports the networks of one seed; trained networks are reused from its folder."""

    def __init__(self, seed: int, settings: Recipe, data: Data, images: dict[str, EvalSet], terminal: Terminal) -> None:
        """Bind what all networks share. settings: recipes/mobilenet_int8_long.yaml; images: by split."""
        self.seed, self.settings, self.data, self.images, self.terminal = seed, settings, data, images, terminal
        first, _, last = settings.stages
        assert isinstance(first, train.Config)
        assert isinstance(last, distill.Config)
        self.first, self.second = first, last.model_copy(update={"epochs": EPOCHS})

    def context(self, name: str) -> Context:
        """Return the context of a stage that writes its files into the folder `name` of the seed."""
        folder = FOLDER / f"seed-{self.seed}" / "steps" / name
        folder.mkdir(parents=True, exist_ok=True)
        return Context(
            name, self.data.classes, self.data.train, self.settings.preprocessing, self.seed, "cpu", folder, (TARGET,),
            lambda _: self.unpruned(), self.images.__getitem__, self.subset, lambda epoch, values: None,
            self.terminal,
        )  # fmt: skip

    def subset(self, split: str, count: int) -> EvalSet:
        """Return images that are spread over a split."""
        return self.images[split].spread(count)

    def unpruned(self) -> nn.Module:
        """Return the trained MobileNetV2 that is pruned, the same for all seeds."""
        first = Trainer(0, self.settings, self.data, self.images, self.terminal) if self.seed else self
        return first.trained("unpruned", first.untrained(self.settings.model), self.first)

    def untrained(self, model: object) -> Callable[[], nn.Module]:
        """Return a function that creates a network with random weights."""
        return lambda: weights.create(model, len(self.data.classes), self.seed)

    def trained(
        self, name: str, start: Callable[[], nn.Module], config: train.Config | distill.Config, model: object = None
    ) -> nn.Module:
        """Return a trained network; train it if it is not stored."""
        context = self.context(name)
        if not (context.folder / checkpoint.WEIGHTS_FILE).exists():
            self.terminal.say(f"seed {self.seed}: {name}")
            checkpoint.save(context.folder, train_network(start(), context, config))
        return checkpoint.load(context.folder, model or self.settings.model, len(self.data.classes))

    def exported(self, name: str, network: nn.Module) -> tuple[Artifact, int]:
        """Return a network as a float32 file, and its MACs."""
        side = self.settings.preprocessing.crop
        file = to_onnx(network, self.context(name).folder / "model-float32.onnx", side, opset=18, batch=None)
        macs = count_macs(network, torch.zeros(1, 3, side, side))
        return file.artifact(self.settings.preprocessing, self.data.classes), macs


def main() -> None:
    """Train the missing networks, measure all, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    seeds = int(os.environ.get("SEEDS") or 3)
    parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds; also the variable SEEDS")
    options = parser.parse_args()
    settings = recipe.load(ROOT / "recipes/mobilenet_int8_long.yaml", [])
    data: Data = plugins.load("data", settings.data.name).load(settings.data)
    results: list[list[Result]] = []
    with Terminal(FOLDER / "bench.log") as terminal:
        images = {split: _images(split, data, settings, terminal) for split in ("train", "val", "test")}
        for seed in range(options.seeds):
            results.append(_results(Trainer(seed, settings, data, images, terminal)))
    labels = images["test"].labels
    assert labels is not None
    rows = _rows(results)
    print(f"{'network':<22}{'share':>6}{'p50 ms':>8}{'top-1 %':>9}{'+-':>6}{'MMACs':>7}{'MB':>6}  compress - it, pp")
    for row in rows:
        print(_line(row))
    print(f"{options.seeds} seeds, {len(labels)} test images")
    machine = asdict(environment.describe())
    print(json.dumps({"rows": [asdict(row) for row in rows], "environment": machine}, allow_nan=False))


def _images(split: str, data: Data, settings: Recipe, terminal: Terminal) -> EvalSet:
    folder = FOLDER / "images" / split
    if (folder / "evalset.json").exists():
        return evalset.load(folder)
    return samples.write_evalset(
        folder, data.split(split), data.classes, settings.preprocessing, terminal, f"prepare {split} images"
    )


def _results(trainer: Trainer) -> list[Result]:
    """Train and measure all networks of a seed."""
    networks = {BASELINE: trainer.trained(BASELINE, trainer.unpruned, trainer.second)}
    for name in _prune_all(trainer):
        networks[name] = trainer.trained(name, partial(_stored, trainer, name), trainer.second)
    longer = trainer.first.model_copy(update={"epochs": trainer.first.epochs + trainer.second.epochs})
    for name, model in (
        ("MobileNetV2 0.5", mobilenet_v2.Config(width=0.5, dropout=trainer.settings.model.dropout)),
        ("MobileNetV3-Small", mobilenet_v3.Config(size="small")),
    ):
        networks[name] = trainer.trained(name, trainer.untrained(model), longer, model)
    exported = [trainer.exported(name, network) for name, network in networks.items()]
    test = trainer.images["test"]
    measurements = measure([artifact for artifact, _ in exported], TARGET, test, TIMING, trainer.terminal)
    return [
        Result(
            name, np.ravel(measurement.latency_ms), np.asarray(measurement.predicted) == test.labels, macs,
            artifact.manifest.size_bytes,
        )
        for name, measurement, (artifact, macs) in zip(networks, measurements, exported, strict=True)
    ]  # fmt: skip


def _prune_all(trainer: Trainer) -> list[str]:
    """Prune the network by every method before any further training, and store the results; return the names.

    All seeds share these networks. Latency is measured here: run nothing else on the machine in the meantime.
    """
    names = []
    for share in SHARES:
        names.append(f"{OURS} {share:.2f}")
        missing = not _pruned_folder(names[-1]).exists()
        if missing:
            context = trainer.context(f"prune {share:.2f}")
            config = prune.Config(latency=share, precision="float32", step=STEP)
            cost_model = build_cost_model(trainer.unpruned(), context, config)
            plan = make_pruning_plan(trainer.unpruned(), context, config, cost_model, share)
            _store(names[-1], apply_plan(trainer.unpruned(), context, plan))
        for method, pruner in _pruners(trainer).items():
            names.append(f"{method} {share:.2f}")
            if not _pruned_folder(names[-1]).exists():
                if not missing:
                    folder = _pruned_folder("")
                    raise InputError(f"{folder}: contains only some of the pruned networks; remove it and start again")
                assert plan.measured_share is not None
                _store(names[-1], _at_latency(trainer, cost_model, pruner, plan.measured_share))
    return names


def _pruned_folder(name: str) -> Path:
    return FOLDER / "pruned" / name


def _store(name: str, network: nn.Module) -> None:
    _pruned_folder(name).mkdir(parents=True)
    checkpoint.save(_pruned_folder(name), network)


def _stored(trainer: Trainer, name: str) -> nn.Module:
    return checkpoint.load(_pruned_folder(name), trainer.settings.model, len(trainer.data.classes))


def _pruners(trainer: Trainer) -> dict[str, Pruner]:
    """Return the methods to compare with, by name."""
    example = torch.zeros(1, 3, *[trainer.settings.preprocessing.crop] * 2)
    context = trainer.context("importance")
    return {
        "torch-pruning": lambda network, share: _torch_pruning(network, example, share, everywhere=False),
        "torch-p. global": lambda network, share: _torch_pruning(network, example, share, everywhere=True),
        "uniform": lambda network, share: _uniform(network, context, example, share),
    }


def _at_latency(trainer: Trainer, cost_model: CostModel, pruner: Pruner, requested: float) -> nn.Module:
    """Return the pruned network with the measured latency nearest to a share of the baseline's, by bisection."""
    assert cost_model.bench is not None
    low, high = 0.0, 0.95
    tries: list[tuple[float, float]] = []
    for _ in range(TRIES):
        removed = (low + high) / 2
        shapes = layer_shapes(pruner(trainer.unpruned(), removed))
        measured = [cost_model.bench.measure_copy(shapes)[0] for _ in range(REPEATS)]
        ratio = float(np.median([sample.ratio for sample in measured]))
        tries.append((abs(ratio - requested), removed))
        low, high = (removed, high) if ratio > requested else (low, removed)
    distance, removed = min(tries)
    trainer.terminal.say(
        f"{removed:.3f} of the channels removed: latency within {distance:.3f} of the requested share {requested:.3f}"
    )
    return pruner(trainer.unpruned(), removed)


def _torch_pruning(network: nn.Module, example: torch.Tensor, share: float, *, everywhere: bool) -> nn.Module:
    classifier = [module for module in network.modules() if isinstance(module, nn.Linear)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        network, example, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2), pruning_ratio=share,
        global_pruning=everywhere, max_pruning_ratio=0.9 if everywhere else 1.0, round_to=STEP,
        ignored_layers=classifier,
    )  # fmt: skip
    pruner.step()
    return network


def _uniform(network: nn.Module, context: Context, example: torch.Tensor, share: float) -> nn.Module:
    groups = find_groups(network, example)
    scores = unit_scores("taylor", network, groups, importance_batches(context), cross_entropy(0.0), context.seed)
    removed = {}
    for group in groups:
        kept = max(STEP, round(group.units * (1 - share) / STEP) * STEP)
        removed[group.name] = np.argsort(-scores[group.name], kind="stable")[kept:]
    return remove_units_checked(network, groups, removed, torch.randn(2, *example.shape[1:]))


def _rows(results: list[list[Result]]) -> list[Row]:
    """Return the mean over seeds of each network."""
    baselines = [next(result for result in seed if result.network == BASELINE) for seed in results]
    rows = []
    for of_network in zip(*results, strict=True):
        ratios = [np.median(result.latency_ms) / np.median(baseline.latency_ms)
                  for result, baseline in zip(of_network, baselines, strict=True)]  # fmt: skip
        top1 = [float(result.correct.mean()) for result in of_network]
        rows.append(Row(
            of_network[0].network, float(np.mean(ratios)),
            float(np.mean([np.median(result.latency_ms) for result in of_network])),
            float(np.mean(top1)), float(np.std(top1, ddof=1)) if len(top1) > 1 else 0.0, len(top1),
            of_network[0].macs, of_network[0].size_bytes, None,
        ))  # fmt: skip
    correct = {
        of_network[0].network: np.stack([result.correct for result in of_network])
        for of_network in zip(*results, strict=True)
    }
    return [replace(row, ours_gain_pp=_gain(row, rows, correct)) for row in rows]


def _gain(row: Row, rows: list[Row], correct: dict[str, npt.NDArray[np.bool_]]) -> tuple[float, float, float] | None:
    """Return the gain of ours over a row in percentage points with its 95 % interval.

    Ours is the one at the row's share or, for ready-made networks, the slowest one that is not slower than the row.
    """
    ours = [candidate for candidate in rows if candidate.network.startswith(OURS)]
    if row in ours or row.network == BASELINE:
        return None
    same_share = [candidate for candidate in ours if candidate.network.split()[-1] == row.network.split()[-1]]
    faster = [candidate for candidate in ours if candidate.latency_ratio <= row.latency_ratio]
    if not same_share and not faster:
        return None
    chosen = same_share[0] if same_share else max(faster, key=lambda candidate: candidate.latency_ratio)
    difference = (correct[chosen.network].astype(float) - correct[row.network]).mean(axis=0)
    rng = np.random.default_rng(0)
    means = [difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return 100 * float(difference.mean()), 100 * float(low), 100 * float(high)


def _line(row: Row) -> str:
    gain = "" if row.ours_gain_pp is None else "{:+.2f} ({:+.1f} to {:+.1f})".format(*row.ours_gain_pp)
    return (
        f"{row.network:<22}{row.latency_ratio:>6.2f}{row.latency_ms_p50:>8.3f}{100 * row.top1:>9.2f}"
        f"{100 * row.top1_std:>6.2f}{row.macs / 1e6:>7.1f}{row.size_bytes / 1e6:>6.2f}  {gain}"
    )


if __name__ == "__main__":
    main()
