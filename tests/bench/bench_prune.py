"""Pruned to measured milliseconds, by us and by others, and ready-made small networks, all trained as long, on ELPV.

The network to be made faster is MobileNetV2 at 96 px, trained once as the first stage of recipes/mobilenet_int8.yaml
trains it. Everything cut from it is trained on alike: 10 epochs of the recipe's stage distill, with the uncut network
as the teacher. In each of several seeds:

    as it is          the uncut network, trained on like the others
    ours 0.60         the stage prune: 0.60 of the milliseconds of the float32 file in ONNX Runtime, and so on
    torch-pruning     Torch-Pruning's MagnitudePruner, one ratio for all layers, as by default, multiples of 8
    torch-p. global   the same with one threshold for the whole network
    uniform           every group keeps one share of its channels, the best by our importance: without our search
    V2 0.5, V3-Small  ready-made networks, trained from scratch for all epochs of the others together

The ratio of torch-pruning and uniform is found by bisection, so that the *measured* latency is that of ours (the
nearest of 8 tries, each the median of three measurements). All is cut once, first, which takes some ten minutes in
which nothing else may run; seeds differ in all that is trained behind that. Channels of all are multiples of 8. top-1
in % on the 654 images of the test split that nothing else reads, in ONNX Runtime; +- is the standard deviation over
seeds. p50 in ms, one thread, batch 1, all files of a seed interleaved in one process; share is of the uncut network's.
ours - it: top-1 in percentage points, paired over images and seeds, with its 95 % interval (a bootstrap over images).

The last line is JSON, for programs. A seed takes some 25 minutes on two cores; what is trained stays in
runs/bench_prune and is used again until that folder is removed.

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
from compress.pruning.costs import CostModel, build_cost_model
from compress.pruning.groups import find_groups
from compress.pruning.importance import importance_batches, unit_scores
from compress.pruning.planning import apply_plan, make_pruning_plan
from compress.pruning.surgery import remove_units_checked
from compress.recipe import plugins, recipe
from compress.recipe.recipe import Recipe
from compress.stages import distill, prune, train
from compress.training.context import Context
from compress.training.losses import cross_entropy
from compress.training.teaching import train as train_network
from export.to_onnx import INPUT_NAME, OUTPUT_NAME, to_onnx
from runtimes import environment, evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.files import sha256_file
from runtimes.measure import measure
from runtimes.target import Target

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "runs/bench_prune"
SHARES = (0.6, 0.4, 0.25)
STEP = 8
TRIES = 8  # of the bisection
REPEATS = 3  # of each try, whose median counts
EPOCHS = 10  # of training on
TIMING = Timing(warmup=10, blocks=40, runs_per_block=8)
TARGET = Target("bench", threads=1, batch=1)
AS_IT_IS = "as it is"
BOOTSTRAPS = 2000

Cutter = Callable[[nn.Module, float], nn.Module]  # (network, share to cut) -> a narrower one


@dataclass(frozen=True)
class Answer:
    """A network of one seed: what its file weighs, takes and says."""

    who: str
    latency_ms: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    macs: int
    size_bytes: int


@dataclass(frozen=True)
class Row:
    """One line of the table, over all seeds. top1, top1_std: shares; ours_gain_pp: ours less this, and its interval."""

    who: str
    latency_ratio: float
    latency_ms_p50: float
    top1: float
    top1_std: float
    seeds: int
    macs: int
    size_bytes: int
    ours_gain_pp: tuple[float, float, float] | None


class Trainer:
    """Trains, cuts and exports for one seed; what it trained is in `folder` and is taken from there."""

    def __init__(self, seed: int, given: Recipe, data: Data, images: dict[str, EvalSet], terminal: Terminal) -> None:
        """Bind what all networks share. given: recipes/mobilenet_int8.yaml."""
        self.seed, self.given, self.data, self.images, self.terminal = seed, given, data, images, terminal
        first, _, last = given.stages
        assert isinstance(first, train.Config)
        assert isinstance(last, distill.Config)
        self.first, self.second = first, last.model_copy(update={"epochs": EPOCHS})

    def context(self, name: str) -> Context:
        """Return what a stage may use; it leaves its files in the folder `name` of the seed."""
        folder = FOLDER / f"seed-{self.seed}" / "steps" / name
        folder.mkdir(parents=True, exist_ok=True)
        return Context(
            name, self.data.classes, self.data.train, self.given.preprocessing, self.seed, "cpu", folder, (TARGET,),
            lambda _: self.uncut(), self.images.__getitem__, self.some, lambda epoch, values: None,
            self.terminal,
        )  # fmt: skip

    def some(self, split: str, count: int) -> EvalSet:
        """Return images that are spread over a split."""
        return self.images[split].spread(count)

    def uncut(self) -> nn.Module:
        """Return the trained MobileNetV2 from which all others are cut, the same for all seeds."""
        first = Trainer(0, self.given, self.data, self.images, self.terminal) if self.seed else self
        return first.once("uncut", first.fresh(self.given.model), self.first)

    def fresh(self, model: object) -> Callable[[], nn.Module]:
        """Return what makes a network with random weights."""
        return lambda: weights.create(model, len(self.data.classes), self.seed)

    def once(
        self, name: str, start: Callable[[], nn.Module], config: train.Config | distill.Config, model: object = None
    ) -> nn.Module:
        """Return a trained network, from the folder if it is there."""
        context = self.context(name)
        if not (context.folder / checkpoint.WEIGHTS_FILE).exists():
            self.terminal.say(f"seed {self.seed}: {name}")
            checkpoint.save(context.folder, train_network(start(), context, config))
        return checkpoint.load(context.folder, model or self.given.model, len(self.data.classes))

    def exported(self, name: str, network: nn.Module) -> tuple[Artifact, int]:
        """Return a network as a float32 file, with its MACs."""
        folder = self.context(name).folder
        path, side = folder / "model-float32.onnx", self.given.preprocessing.crop
        if not path.exists():
            to_onnx(network, path, side, opset=18, batch=None)
        example = torch.zeros(1, 3, side, side)
        count = count_macs(network, example)
        manifest = Manifest(
            sha256_file(path), path.stat().st_size, "onnx", "float32", INPUT_NAME, (None, 3, side, side), OUTPUT_NAME,
            self.given.preprocessing, self.data.classes, 18, versions=environment.package_versions(),
        )  # fmt: skip
        return Artifact(path, manifest), count


def main() -> None:
    """Train what is missing, measure, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    seeds = int(os.environ.get("SEEDS") or 3)
    parser.add_argument("--seeds", type=int, default=seeds, help="how often all is done; or the variable SEEDS")
    options = parser.parse_args()
    given = recipe.load(ROOT / "recipes/mobilenet_int8.yaml", [])
    data: Data = plugins.load("data", given.data.name).load(given.data)
    answers: list[list[Answer]] = []
    with Terminal(FOLDER / "bench.log") as terminal:
        images = {split: _images(split, data, given, terminal) for split in ("train", "val", "test")}
        for seed in range(options.seeds):
            answers.append(_answers(Trainer(seed, given, data, images, terminal)))
    labels = images["test"].labels
    assert labels is not None
    rows = _rows(answers)
    print(f"{'who':<22}{'share':>6}{'p50 ms':>8}{'top-1 %':>9}{'+-':>6}{'MMACs':>7}{'MB':>6}  {'ours - it, pp':<16}")
    for row in rows:
        print(_line(row))
    print(f"{options.seeds} seeds, {len(labels)} test images")
    machine = asdict(environment.describe())
    print(json.dumps({"rows": [asdict(row) for row in rows], "environment": machine}, allow_nan=False))


def _images(split: str, data: Data, given: Recipe, terminal: Terminal) -> EvalSet:
    folder = FOLDER / "images" / split
    if (folder / "evalset.json").exists():
        return evalset.load(folder)
    return samples.write_evalset(
        folder, data.split(split), data.classes, given.preprocessing, terminal, f"prepare {split} images"
    )  # fmt: skip


def _answers(trainer: Trainer) -> list[Answer]:
    """Train and measure all networks of a seed."""
    networks = {AS_IT_IS: trainer.once(AS_IT_IS, trainer.uncut, trainer.second)}
    for name in _cut_all(trainer):
        networks[name] = trainer.once(name, partial(_cut_network, trainer, name), trainer.second)
    longer = trainer.first.model_copy(update={"epochs": trainer.first.epochs + trainer.second.epochs})
    for name, model in (
        ("MobileNetV2 0.5", mobilenet_v2.Config(width=0.5, dropout=trainer.given.model.dropout)),
        ("MobileNetV3-Small", mobilenet_v3.Config(size="small")),
    ):
        networks[name] = trainer.once(name, trainer.fresh(model), longer, model)
    exported = [trainer.exported(name, network) for name, network in networks.items()]
    test = trainer.images["test"]
    taken = measure([artifact for artifact, _ in exported], TARGET, test, TIMING, trainer.terminal)
    return [
        Answer(who, np.ravel(one.latency_ms), one.predicted == test.labels, count, artifact.manifest.size_bytes)
        for who, one, (artifact, count) in zip(networks, taken, exported, strict=True)
    ]


def _cut_all(trainer: Trainer) -> list[str]:
    """Cut the network in every way, if that was not done, before anything is trained on; return the names.

    All seeds share these cuts. What the clock says while nothing else runs decides: don't use the machine meanwhile.
    """
    names = []
    for share in SHARES:
        names.append(f"ours {share:.2f}")
        missing = not _cut_folder(names[-1]).exists()
        if missing:
            context = trainer.context(f"prune {share:.2f}")
            config = prune.Config(latency=share, precision="float32", step=STEP)
            cost_model = build_cost_model(trainer.uncut(), context, config)
            plan = make_pruning_plan(trainer.uncut(), context, config, cost_model, share)
            _store(names[-1], apply_plan(trainer.uncut(), context, plan))
        for who, cutter in _cutters(trainer).items():
            names.append(f"{who} {share:.2f}")
            if not _cut_folder(names[-1]).exists():
                if not missing:
                    raise InputError(f"{FOLDER}: holds a part of the cuts; remove the folder 'cut' and start again")
                assert plan.measured_share is not None
                _store(names[-1], _at_latency(trainer, cost_model, cutter, plan.measured_share))
    return names


def _cut_folder(name: str) -> Path:
    return FOLDER / "cut" / name


def _store(name: str, network: nn.Module) -> None:
    _cut_folder(name).mkdir(parents=True)
    checkpoint.save(_cut_folder(name), network)


def _cut_network(trainer: Trainer, name: str) -> nn.Module:
    return checkpoint.load(_cut_folder(name), trainer.given.model, len(trainer.data.classes))


def _cutters(trainer: Trainer) -> dict[str, Cutter]:
    """Return how others cut, given a share of the channels."""
    example = torch.zeros(1, 3, *[trainer.given.preprocessing.crop] * 2)
    context = trainer.context("importance")
    return {
        "torch-pruning": lambda network, cut: _torch_pruning(network, example, cut, everywhere=False),
        "torch-p. global": lambda network, cut: _torch_pruning(network, example, cut, everywhere=True),
        "uniform": lambda network, cut: _uniform(network, context, example, cut),
    }


def _at_latency(trainer: Trainer, cost_model: CostModel, cutter: Cutter, wanted: float) -> nn.Module:
    """Return the cut network whose measured latency is the nearest to a share of the whole network's, by bisection."""
    assert cost_model.bench is not None
    low, high = 0.0, 0.95
    tried: list[tuple[float, float]] = []
    for _ in range(TRIES):
        cut = (low + high) / 2
        narrow = layer_shapes(cutter(trainer.uncut(), cut))
        samples = [cost_model.bench.measure_copy(cost_model.full, narrow)[0] for _ in range(REPEATS)]
        ratio = float(np.median([sample.ratio for sample in samples]))
        tried.append((abs(ratio - wanted), cut))
        low, high = (cut, high) if ratio > wanted else (low, cut)
    distance, cut = min(tried)
    trainer.terminal.say(f"{cut:.3f} of the channels cut: {distance:.3f} from {wanted:.3f} of the latency")
    return cutter(trainer.uncut(), cut)


def _torch_pruning(network: nn.Module, example: torch.Tensor, cut: float, *, everywhere: bool) -> nn.Module:
    classifier = [module for module in network.modules() if isinstance(module, nn.Linear)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        network, example, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2), pruning_ratio=cut,
        global_pruning=everywhere, max_pruning_ratio=0.9 if everywhere else 1.0, round_to=STEP,
        ignored_layers=classifier,
    )  # fmt: skip
    pruner.step()
    return network


def _uniform(network: nn.Module, context: Context, example: torch.Tensor, cut: float) -> nn.Module:
    groups = find_groups(network, example)
    scores = unit_scores("taylor", network, groups, importance_batches(context), cross_entropy(0.0), context.seed)
    removed = {}
    for group in groups:
        kept = max(STEP, round(group.units * (1 - cut) / STEP) * STEP)
        removed[group.name] = np.argsort(-scores[group.name], kind="stable")[kept:]
    return remove_units_checked(network, groups, removed, torch.randn(2, *example.shape[1:]))


def _rows(answers: list[list[Answer]]) -> list[Row]:
    """Return the mean over seeds of each network."""
    uncut = [{one.who: one for one in seed}[AS_IT_IS] for seed in answers]
    rows = []
    for same in zip(*answers, strict=True):
        ratios = [np.median(one.latency_ms) / np.median(whole.latency_ms)
                  for one, whole in zip(same, uncut, strict=True)]  # fmt: skip
        top1 = [float(one.right.mean()) for one in same]
        rows.append(Row(
            same[0].who, float(np.mean(ratios)), float(np.mean([np.median(one.latency_ms) for one in same])),
            float(np.mean(top1)), float(np.std(top1, ddof=1)) if len(top1) > 1 else 0.0, len(top1),
            same[0].macs, same[0].size_bytes, None,
        ))  # fmt: skip
    right = {same[0].who: np.stack([one.right for one in same]) for same in zip(*answers, strict=True)}
    return [replace(row, ours_gain_pp=_gain(row, rows, right)) for row in rows]


def _gain(row: Row, rows: list[Row], right: dict[str, npt.NDArray[np.bool_]]) -> tuple[float, float, float] | None:
    """Return how much better ours is than a row, in percentage points with its 95 % interval.

    Ours is that at the row's share or, for ready-made networks, the slowest that is as fast.
    """
    ours = [one for one in rows if one.who.startswith("ours")]
    if row in ours or row.who == AS_IT_IS:
        return None
    named = [one for one in ours if one.who.split()[-1] == row.who.split()[-1]]
    faster = [one for one in ours if one.latency_ratio <= row.latency_ratio]
    if not named and not faster:
        return None
    chosen = named[0] if named else max(faster, key=lambda one: one.latency_ratio)
    difference = (right[chosen.who].astype(float) - right[row.who]).mean(axis=0)
    rng = np.random.default_rng(0)
    means = [difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return 100 * float(difference.mean()), 100 * float(low), 100 * float(high)


def _line(row: Row) -> str:
    gain = "" if row.ours_gain_pp is None else "{:+.2f} ({:+.1f} to {:+.1f})".format(*row.ours_gain_pp)
    return (
        f"{row.who:<22}{row.latency_ratio:>6.2f}{row.latency_ms_p50:>8.3f}{100 * row.top1:>9.2f}"
        f"{100 * row.top1_std:>6.2f}{row.macs / 1e6:>7.1f}{row.size_bytes / 1e6:>6.2f}  {gain}"
    )


if __name__ == "__main__":
    main()
