"""Estimate how long the steps of a run take, from earlier runs and from a few timed training steps."""

from __future__ import annotations

import itertools
import json
import math
import operator
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from compress.images.samples import Data
from compress.pipeline.identity import identity
from compress.pipeline.images import RunImages
from compress.pipeline.initial import trainings
from compress.pipeline.networks import resolve_device
from compress.pipeline.steps import DONE
from compress.process import distributed
from compress.pruning.config import PruneConfig
from compress.recipe.recipe import Recipe
from compress.training.config import FitConfig
from runtimes.files import Json, read_json
from runtimes.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn

StageConfig: TypeAlias = Any  # the Config of a stage's plug-in

MAX_STEPS, TIMED_S = 12, 4.0  # timing ends with the first that is reached
FORWARD = 1 / 3  # time of a forward pass / of a training step
FAKE_QUANTIZATION = 3.0  # time of a training step with fake quantization / without
# Steps that no earlier run timed, by the first word of their name, for a small network on a desktop processor.
USUAL_S = {"network": 3.0, "baseline": 10.0, "float32": 10.0, "int8": 10.0, "engine": 60.0, "measure": 5.0}
PRUNING_S, OTHER_S = 30.0, 1.0


def expected_s(recipe: Recipe, names: Iterable[str], data: Data, earlier: Mapping[str, float]) -> dict[str, float]:
    """Return the expected seconds of steps by name. earlier: those that are known, from `earlier_s`.

    Training steps are timed on this machine if a training is among the other steps.
    """
    stages = dict(zip(stage_names(recipe), recipe.stages, strict=True))
    shares = dict(zip(stages, _shares_left(recipe.stages), strict=True))
    expected, image_s = {}, None
    for name in names:
        if name in earlier:
            expected[name] = earlier[name]
        elif name in stages:
            if image_s is None and trainings(stages[name]):
                image_s = time_per_image_s(recipe, len(data.classes), trainings(stages[name])[0][1].batch_size)
            expected[name] = _stage_s(stages[name], data, image_s or 0.0, shares[name], recipe.preprocessing)
        else:
            expected[name] = USUAL_S.get(name.partition("-")[0], OTHER_S)
    return expected


def stage_names(recipe: Recipe) -> list[str]:
    """Return the names of the steps of the stages, in order."""
    return [f"{index}-{stage.stage}" for index, stage in enumerate(recipe.stages)]


def earlier_s(recipe: Recipe, images: RunImages) -> dict[str, float]:
    """Return the seconds of the newest step of each name in the cache.

    A stage counts if it ran on the same network and images; the time of a training is scaled by the epochs.
    """
    stages = dict(zip(stage_names(recipe), recipe.stages, strict=True))
    same = json.loads(json.dumps({"model": identity(recipe.model), "train": identity(images.of("train"))}))
    seconds: dict[str, float] = {}
    for content in _finished(images):
        try:
            name, time_s = content["step"], float(content["duration_s"])
            if name in stages:
                time_s *= _share(content["arguments"], stages[name], same)
        except (KeyError, TypeError, ValueError):  # a damaged file, or one of another version
            continue
        if time_s:
            seconds[name] = time_s
    return seconds


def in_words(seconds: float) -> str:
    """Return a duration, rounded as an estimate is."""
    if seconds < 10:
        return "under 10 s"
    if seconds < 90:
        return f"about {round(seconds / 10) * 10} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} hours"


def _finished(images: RunImages) -> list[Json]:
    """Return the content of done.json of all finished steps in the cache, the newest last."""
    contents = []
    for path in (images.steps.cache / "steps").glob(f"*/{DONE}"):
        try:
            contents.append((path.stat().st_mtime, read_json(path)))
        except (OSError, ValueError):
            continue
    return [content for _, content in sorted(contents, key=lambda item: item[0])]


def _share(arguments: Json, stage: StageConfig, same: Json) -> float:
    """Return the epochs of a stage as a share of those of an earlier one, 0 for an earlier one on something else."""
    if arguments["previous"]["sections"][0] != same["model"] or arguments["train"] != same["train"]:
        return 0.0
    config = arguments["setup"]["config"]
    return float(stage.epochs / config["epochs"]) if isinstance(stage, FitConfig) else 1.0


def _shares_left(stages: Sequence[StageConfig]) -> list[float]:
    """Return for each stage how much of the network's time is left: the product of the budgets of pruning so far."""
    budgets = [stage.budget if isinstance(stage, PruneConfig) else 1.0 for stage in stages]
    return list(itertools.accumulate(budgets, operator.mul))


def _stage_s(stage: StageConfig, data: Data, image_s: float, share: float, images: Preprocessing) -> float:
    """Return the expected seconds of a stage.

    image_s: of training the unpruned network, per image. share: of its time that pruning leaves.
    """
    full = images.height, images.width
    total_s = PRUNING_S if isinstance(stage, PruneConfig) else 0.0
    rounds = stage.rounds if isinstance(stage, PruneConfig) else 1
    for _, fit in trainings(stage):
        epochs = sum(math.prod(fit.sides(epoch, full)) / math.prod(full) for epoch in range(fit.epochs))
        training_s = epochs * len(data.train) * image_s * share * (1 if fit.TRAINS_MODULES else FAKE_QUANTIZATION)
        validation_s = fit.epochs * len(data.val) * image_s * share * FORWARD
        passes = (fit.augment.flip_variants if fit.tabulates_teacher else epochs) if fit.teacher else 0
        teacher_s = passes * len(data.train) * image_s * FORWARD
        total_s += rounds * (training_s + validation_s + teacher_s)
    return total_s


def time_per_image_s(recipe: Recipe, classes: int, batch: int) -> float:
    """Return the seconds of training per image on this machine, from a few steps on random images."""
    import torch

    # torch loads slowly
    from compress.networks import architecture
    from compress.networks.channels import take_channels
    from compress.training.optimization import make_optimizer

    device, shape, processes = resolve_device(recipe.device), recipe.preprocessing.input_shape, distributed.world_size()
    batch = max(2, batch // processes)
    with torch.random.fork_rng(devices=[]):  # later steps draw the same numbers with and without an estimate
        network = architecture.build(recipe.model, classes)
        take_channels(network, shape[0])
        network = network.to(device).train().to(memory_format=torch.channels_last)
        optimizer = make_optimizer(network, FitConfig())
        images = torch.rand(batch, *shape, device=device).to(memory_format=torch.channels_last)
        labels = torch.arange(batch, device=device) % classes
        times_s: list[float] = []
        while len(times_s) < MAX_STEPS and sum(times_s) < TIMED_S:
            started = time.perf_counter()
            _train_step(network, optimizer, images, labels)
            times_s.append(time.perf_counter() - started)
    # The first steps choose kernels and allocate memory.
    return statistics.median(times_s[len(times_s) // 2 :]) / batch / processes


def _train_step(network: nn.Module, optimizer: Any, images: Tensor, labels: Tensor) -> None:
    from compress.training.losses import cross_entropy  # imports torch

    optimizer.zero_grad(set_to_none=True)
    value = cross_entropy(0.1)(images, network(images), labels)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    float(value.detach())  # waits for a GPU
