"""Optimizers, learning rate schedules and frozen modules."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
from collections.abc import Iterator, Sequence
from typing import Protocol, assert_never, runtime_checkable

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from compress.training.config import FitConfig
from runtimes.errors import InputError


@runtime_checkable
class Renamed(Protocol):
    """A network made of the recipe's network, whose modules have other names there."""

    def recipe_modules(self) -> dict[str, nn.Module]:
        """Return modules with the trained parameters, by their names in the recipe's network."""
        ...


def recipe_modules(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules by their names in the recipe's network, to which the patterns of a recipe refer."""
    if isinstance(network, Renamed):
        return network.recipe_modules()
    return {name: module for name, module in network.named_modules() if name}


def make_optimizer(network: nn.Module, config: FitConfig) -> Optimizer:
    """Return the optimizer of all trainable parameters, without weight decay for norms and biases (one dimension).

    Raises InputError for a name in config.lr_scale that matches no module.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    factors = _factors(network, config.lr_scale)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((factors[name], parameter.ndim > 1), []).append(parameter)
    parameters = [
        {"params": members, "weight_decay": config.weight_decay if decays else 0.0, "lr": config.lr * factor}
        for (factor, decays), members in sorted(groups.items(), key=lambda group: (-group[0][0], not group[0][1]))
    ]
    if config.optimizer == "sgd":
        return SGD(parameters, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    if config.optimizer == "rmsprop":
        return RMSprop(parameters, lr=config.lr, momentum=config.momentum, alpha=0.9, eps=2e-3)
    if config.optimizer == "adamw":
        return AdamW(parameters, lr=config.lr)
    assert_never(config.optimizer)


def _factors(network: nn.Module, scales: dict[str, float]) -> dict[str, float]:
    """Return the factor of each parameter's learning rate: the scale of the innermost module that has one, else 1."""
    if not scales:
        return {name: 1.0 for name, _ in network.named_parameters()}
    modules = recipe_modules(network)
    innermost: dict[nn.Parameter, tuple[int, float]] = {}
    for pattern, scale in scales.items():
        for name in names_matching(list(modules), pattern, "lr_scale"):
            for parameter in modules[name].parameters():
                innermost[parameter] = max(innermost.get(parameter, (0, 1.0)), (len(name), scale))
    return {name: innermost.get(parameter, (0, 1.0))[1] for name, parameter in network.named_parameters()}


def names_matching(names: Sequence[str], pattern: str, key: str, kind: str = "module") -> list[str]:
    """Return the names that a name or pattern matches; raises InputError, with similar names, if there are none.

    key: of the recipe, for the error. kind: of the things that have the names.
    """
    matching = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not matching:
        raise unknown_name(names, pattern, key, kind)
    return matching


def unknown_name(names: Sequence[str], name: str, key: str, kind: str = "module") -> InputError:
    """Return the error for a name that is not among the names, with similar ones or the outermost."""
    near = difflib.get_close_matches(name, names, 3)
    outermost = dict.fromkeys(each.partition(".")[0] for each in names)
    advice = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(outermost)}, and those inside"
    return InputError(f"{key}: there is no {kind} '{name}'; {advice}")


@contextlib.contextmanager
def frozen(network: nn.Module, patterns: tuple[str, ...]) -> Iterator[list[nn.Module]]:
    """Stop the training of modules inside the block; yield the modules, whose BatchNorms the caller sets to eval mode.

    Raises InputError for a pattern that matches no module, or if nothing is left to train.
    """
    own = recipe_modules(network) if patterns else {}
    names = [name for pattern in patterns for name in names_matching(list(own), pattern, "freeze")]
    modules = [own[name] for name in dict.fromkeys(names)]
    trainable = {parameter for module in own.values() for parameter in module.parameters() if parameter.requires_grad}
    frozen_parameters = {parameter for module in modules for parameter in module.parameters()} & trainable
    if patterns and frozen_parameters == trainable:
        raise InputError(f"freeze: {', '.join(patterns)}: nothing is left to train; freeze fewer modules")
    for parameter in frozen_parameters:
        parameter.requires_grad_(False)
    try:
        yield modules
    finally:
        for parameter in frozen_parameters:
            parameter.requires_grad_(True)


def make_schedule(optimizer: Optimizer, config: FitConfig, steps_per_epoch: int) -> LRScheduler:
    """Return the schedule, to step after each batch: cosine after a linear warm-up, or one-cycle (Smith, 2018).

    One-cycle lowers the momentum by 0.1 while the learning rate is high.
    """
    steps = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "onecycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        highest = 0.95 if config.optimizer == "adamw" else config.momentum
        return OneCycleLR(
            optimizer, rates, steps + 1, pct_start=(max(warmup, 1) + 1) / (steps + 1),
            cycle_momentum=highest > 0, base_momentum=max(0.0, highest - 0.1), max_momentum=highest,
        )  # fmt: skip
    if not warmup:
        return CosineAnnealingLR(optimizer, steps)
    rise, fall = LinearLR(optimizer, 0.01, total_iters=warmup), CosineAnnealingLR(optimizer, max(1, steps - warmup))
    return SequentialLR(optimizer, [rise, fall], [warmup])


def like_parameters(
    optimizer: Optimizer, state: dict[int, dict[str, torch.Tensor]]
) -> dict[int, dict[str, torch.Tensor]]:
    """Return the optimizer's state in the memory layout of the parameters, so that a resumed step rounds equally."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        index: {
            name: torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
            if value.shape == parameters[index].shape
            else value
            for name, value in tensors.items()
        }
        for index, tensors in state.items()
    }
