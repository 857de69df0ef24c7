"""`compress.prune`: remove channels of a PyTorch module."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn, cast

import torch
from torch import nn

from compress.api import modules
from compress.api.batches import (
    Batch,
    Data,
    is_images_with_labels,
    loaded_batches,
    prepared_batches,
    require_known_labels,
    shape_as_preprocessing,
)
from compress.api.images import Images
from compress.api.options import PreprocessingArgument, options_of
from compress.api.targets import TargetOrName, target_here
from compress.process.console import Terminal
from compress.process.user_cache import user_cache
from compress.pruning.config import PruneConfig
from compress.pruning.costs import build_cost_model, example_input
from compress.pruning.planning import apply_plan, make_pruning_plan, require_prunable
from compress.pruning.tables import plan_lines
from compress.recipe.errors import validated
from compress.recipe.strict_yaml import YamlValue
from compress.training.context import Context
from runtimes.console import Console
from runtimes.errors import InputError
from runtimes.target import Target

OF_RECIPES = ("fine_tune", "rounds", "target", "stage")  # keys of the stage that have no use here


def prune(
    module: nn.Module,
    data: Data,
    *,
    latency: float | None = None,
    target: TargetOrName = None,
    preprocessing: PreprocessingArgument = None,
    quiet: bool = False,
    **settings: YamlValue,
) -> nn.Module:
    """Remove channels until a share of the latency is left; return the pruned copy, in eval mode, to be trained.

    module: maps (N, C, H, W) to logits (N, classes). It is not changed.
    data: ranks the channels; at most 512 images are used. A data loader of (images, labels), the images normalized as
        the module takes them; or a tuple of images, as `compress.quantize` takes them, and their labels.
    latency: share to keep of the latency of the INT8 file on the target; or give `macs`, the share of multiplications.
    target: device to measure on, as in recipes; by default this machine's CPU.
    preprocessing: of images that are given with labels, as for `compress.quantize`.
    quiet: show neither progress nor the plan.
    settings: keys of a recipe's stage `prune`, as in `macs=0.5`, `precision="float32"`, `keep=["features.0*"]`.

    Raises InputError for a module that can't be pruned, and for a share that can't be reached.
    """
    config, options = _config({"latency": latency, **settings}), options_of(preprocessing)
    measured_on = target_here(target) if config.latency is not None else None
    network = modules.working_copy(module).requires_grad_()  # the importance of frozen layers needs gradients, too
    with Terminal(quiet=quiet) as terminal, tempfile.TemporaryDirectory(prefix="compress-") as name:
        folder = Path(name)
        if is_images_with_labels(data):
            images, labels = cast("tuple[Images, Sequence[int]]", data)
            batches = prepared_batches(network, images, labels, options, folder, terminal)
        else:
            batches = loaded_batches(cast("Iterable[Batch]", data))
        context = _context(network, batches, measured_on, folder, terminal)
        with torch.enable_grad():
            pruned = _pruned(network, batches, context, config)
    trained = {parameter for parameter, value in module.named_parameters() if value.requires_grad}
    for parameter, value in pruned.named_parameters():
        value.requires_grad_(parameter in trained)
    return pruned.to(next((value.device for value in module.parameters()), torch.device("cpu")))


def _config(settings: dict[str, YamlValue]) -> PruneConfig:
    misplaced = [key for key in OF_RECIPES if key in settings]
    if misplaced:
        raise InputError(f"{misplaced[0]}: is for recipes only; train the pruned module yourself, and call prune again "
                         "for another round")  # fmt: skip
    return validated(PruneConfig, {key: value for key, value in settings.items() if value is not None})


def _pruned(network: nn.Module, batches: list[Batch], context: Context, config: PruneConfig) -> nn.Module:
    require_prunable(network, example_input(context), config)
    cost_model = build_cost_model(network, context, config, user_cache("widths"))
    plan = make_pruning_plan(network, context, config, cost_model, config.budget, batches)
    for line in plan_lines(plan):
        context.console.say(line)
    return apply_plan(network, context, plan)


def _context(
    network: nn.Module, batches: list[Batch], target: Target | None, folder: Path, console: Console
) -> Context:
    """Return what pruning needs to know; it reads no split."""
    images, _ = batches[0]
    classes = modules.logits(network, images[:1]).shape[1]
    require_known_labels(batches, classes)
    return Context(
        name="prune",
        classes=tuple(map(str, range(classes))),
        train=(),
        preprocessing=shape_as_preprocessing(images),
        seed=0,
        device="cpu",
        folder=folder,
        target=target,
        teacher=_none,
        prepared=_none,
        subset=_none,
        track=lambda epoch, values: None,
        console=console,
    )


def _none(*_: object) -> NoReturn:
    raise AssertionError("pruning of a module has no splits and no teacher")
