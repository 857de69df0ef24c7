"""Optimizers, learning rate schedules and frozen modules."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator
from typing import assert_never

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from compress.training.config import FitConfig
from runtimes.errors import InputError


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
    modules = {pattern: modules_named(network, pattern, "lr_scale") for pattern in scales}
    factors = {}
    for name, _ in network.named_parameters():
        enclosing = [(len(module), scale) for pattern, scale in scales.items() for module in modules[pattern]
                     if name.startswith(f"{module}.")]  # fmt: skip
        factors[name] = max(enclosing)[1] if enclosing else 1.0
    return factors


def modules_named(network: nn.Module, pattern: str, key: str) -> list[str]:
    """Return the names of the modules that match a name or pattern; raises InputError if there are none.

    key: of the recipe, for the error.
    """
    names = [name for name, _ in network.named_modules() if name]
    matching = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not matching:
        children = ", ".join(name for name, _ in network.named_children())
        raise InputError(f"{key}: there is no module '{pattern}'; there are {children} and their submodules")
    return matching


@contextlib.contextmanager
def frozen(network: nn.Module, patterns: tuple[str, ...]) -> Iterator[list[nn.Module]]:
    """Stop the training of modules inside the block; yield the modules, whose BatchNorms the caller sets to eval mode.

    Raises InputError for a pattern that matches no module, or if nothing is left to train.
    """
    names = [name for pattern in patterns for name in modules_named(network, pattern, "freeze")]
    modules = [network.get_submodule(name) for name in dict.fromkeys(names)]
    trainable = {parameter for parameter in network.parameters() if parameter.requires_grad}
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
