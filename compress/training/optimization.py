"""Optimizers and schedules, all from torch."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from compress.training.config import FitConfig


def make_optimizer(network: nn.Module, config: FitConfig) -> Optimizer:
    """Return the optimizer over all trainable parameters; those with one dimension (norms, biases) don't decay."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    if config.optimizer == "rmsprop":
        return RMSprop(groups, lr=config.lr, momentum=config.momentum, alpha=0.9, eps=2e-3)
    return AdamW(groups, lr=config.lr)


def make_schedule(optimizer: Optimizer, config: FitConfig, steps_per_epoch: int) -> LRScheduler:
    """Return a schedule to be stepped after each batch: cosine after a linear warm-up, or one-cycle (Smith, 2018).

    One-cycle lowers the momentum by 0.1 while the learning rate is high.
    """
    steps = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "onecycle":
        highest = 0.95 if config.optimizer == "adamw" else config.momentum
        return OneCycleLR(
            optimizer, config.lr, steps + 1, pct_start=(max(warmup, 1) + 1) / (steps + 1),
            cycle_momentum=highest > 0, base_momentum=max(0.0, highest - 0.1), max_momentum=highest,
        )  # fmt: skip
    if not warmup:
        return CosineAnnealingLR(optimizer, steps)
    rise, fall = LinearLR(optimizer, 0.01, total_iters=warmup), CosineAnnealingLR(optimizer, max(1, steps - warmup))
    return SequentialLR(optimizer, [rise, fall], [warmup])


def like_parameters(
    optimizer: Optimizer, state: dict[int, dict[str, torch.Tensor]]
) -> dict[int, dict[str, torch.Tensor]]:
    """Give the optimizer's tensors the memory layout of their parameters, so that a resumed step rounds alike."""
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
