"""Losses for the training loop: `loss(images, logits, labels) -> scalar`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy(label_smoothing: float) -> Loss:
    """Return the mean cross-entropy with smoothed labels (Szegedy et al., CVPR 2016, section 7), in nats.

    logits: (N, classes) float; labels: (N,) int64; images are not looked at.
    """

    def loss(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)

    return loss


def distillation(loss: Loss, teacher: nn.Module, share: float, temperature: float) -> Loss:
    """Return `share` of the distance to a teacher's answers plus the rest of another loss.

    The distance is T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch, which keeps its
    gradient's size for every temperature (Hinton et al., Distilling the Knowledge in a Neural Network, 2015, 2.1).
    """
    teacher = teacher.eval().requires_grad_(False)

    def value(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = functional.log_softmax(teacher(images) / temperature, dim=1)
        given = functional.log_softmax(logits / temperature, dim=1)
        distance = functional.kl_div(given, wanted, reduction="batchmean", log_target=True) * temperature**2
        return (1 - share) * loss(images, logits, labels) + share * distance

    return value
