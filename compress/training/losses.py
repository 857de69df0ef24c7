"""Losses for the training loop: `loss(images, logits, labels) -> scalar`.

labels: (N,) int64, or for images that are mixed (N, classes) float, the shares of the classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Teacher = Callable[[Tensor], Tensor]


def cross_entropy(label_smoothing: float) -> Loss:
    """Return the mean cross-entropy with smoothed labels (Szegedy et al., CVPR 2016, section 7), in nats.

    logits: (N, classes) float; labels: (N,) int64, or (N, classes) float shares; images are not looked at.
    """

    def loss(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)

    return loss


def distillation(loss: Loss, teacher: Teacher, share: float, temperature: float) -> Loss:
    """Return `share` of the distance to a teacher's answers plus the rest of another loss.

    teacher: gives logits (N, classes) for images. The distance is T^2 KL(softmax(teacher / T) || softmax(student / T)),
    mean over the batch, which keeps its gradient's size for every temperature (Hinton et al., Distilling the Knowledge
    in a Neural Network, 2015, 2.1).
    """

    def value(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        distance = _divergence(logits.float() / temperature, teacher(images) / temperature) * temperature**2
        return (1 - share) * loss(images, logits, labels) + share * distance

    return value


def decoupled_distillation(loss: Loss, teacher: Teacher, share: float, temperature: float, beta: float) -> Loss:
    """Return as `distillation`, with the distance over the classes other than the label's weighed by `beta` alone.

    TCKD + beta NCKD (Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, equation 7, alpha 1). In Hinton's
    distance the second term fades where the teacher is sure. With two classes it is 0. Raises ValueError for shares of
    classes: there is no one label to take apart.
    """

    def value(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim != 1:
            raise ValueError(f"decoupled distillation needs labels of shape (N,), not {tuple(labels.shape)}")
        given, wanted = logits.float() / temperature, teacher(images) / temperature
        other = ~functional.one_hot(labels, given.shape[1]).bool()
        target = _divergence(_binary(given, other), _binary(wanted, other))
        rest = [one[other].view(len(one), -1) for one in (given, wanted)]
        distance = (target + beta * _divergence(*rest)) * temperature**2
        return (1 - share) * loss(images, logits, labels) + share * distance

    return value


def _binary(logits: Tensor, other: Tensor) -> Tensor:
    """Return logits (N, 2) of the label's class against all others together."""
    label = logits[~other].view(-1, 1)
    rest = logits[other].view(len(logits), -1).logsumexp(1, keepdim=True)
    return torch.cat([label, rest], dim=1)


def _divergence(given: Tensor, wanted: Tensor) -> Tensor:
    """Return KL(softmax(wanted) || softmax(given)), mean over the batch."""
    return functional.kl_div(
        functional.log_softmax(given, dim=1),
        functional.log_softmax(wanted, dim=1),
        reduction="batchmean",
        log_target=True,
    )
