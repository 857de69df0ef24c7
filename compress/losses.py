"""Losses for the training loop: `loss(images, logits, labels) -> scalar`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(label_smoothing: float) -> Loss:
    """Return the mean cross-entropy with smoothed labels (Szegedy et al., CVPR 2016, section 7), in nats.

    logits: (N, classes) float; labels: (N,) int64; images are not looked at.
    """

    def loss(images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)

    return loss
