"""Which layers a network runs, in which order, and what they give."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def run_layers(network: nn.Module, example: Tensor) -> tuple[list[tuple[nn.Conv2d | nn.Linear, Tensor]], Tensor]:
    """Run a network in eval mode; return its convolutions and linear layers as they ran, with outputs, and the logits.

    A module that runs twice is there twice.
    """
    calls: list[tuple[nn.Conv2d | nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, given, output: calls.append((module, output)))
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        with torch.no_grad():
            logits: Tensor = network.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, logits
