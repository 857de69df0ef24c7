"""Losses of the training loop: `loss(images, logits, labels) -> scalar`.

labels: int64 (N,), or for mixed images float (N, classes), the probabilities of the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Teacher = Callable[[Tensor], Tensor]


def cross_entropy(label_smoothing: float, class_counts: Sequence[int] | None = None) -> Loss:
    """Return the mean cross-entropy with smoothed labels (Szegedy et al., CVPR 2016, section 7), in nats.

    class_counts: number of training images of each class, to minimise the mean error of the classes instead of that of
    the images: the logarithms of their shares are added to the logits (Menon et al., Long-tail learning via logit
    adjustment, ICLR 2021, equation 10, tau = 1). None for the mean error of the images.
    logits: float (N, classes). labels: int64 (N,), or float (N, classes) probabilities. images: unused.
    """
    adjusted = _adjustment(class_counts)

    def loss(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(adjusted(logits.float()), labels, label_smoothing=label_smoothing)

    return loss


def _adjustment(class_counts: Sequence[int] | None) -> Callable[[Tensor], Tensor]:
    """Return the function that adds the logarithms of the shares of the classes to logits (N, classes), if given."""
    if class_counts is None:
        return lambda logits: logits
    counts = torch.tensor(class_counts, dtype=torch.float32).clamp_min(1)
    logarithms = torch.log(counts / counts.sum())
    return lambda logits: logits + logarithms.to(logits.device)


def distillation(
    loss: Loss, teacher: Teacher, share: float, temperature: float, class_counts: Sequence[int] | None = None
) -> Loss:
    """Return `share` times the distance to the teacher's outputs plus (1 - `share`) times another loss.

    teacher: returns logits (N, classes) of images. The distance is the mean over the batch of
    T^2 KL(softmax(teacher / T) || softmax(student / T)); T^2 makes the size of its gradient independent of the
    temperature (Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2.1).

    class_counts: for balanced classes, as for `cross_entropy`; added to both logits after the division by T. A teacher
    knows its training images, so that its outputs there are as frequent as the labels; a student that cannot follow
    everywhere would prefer the frequent classes.
    """
    adjusted = _adjustment(class_counts)

    def value(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        distance = _divergence(adjusted(logits.float() / temperature), adjusted(teacher(images) / temperature))
        distance = distance * temperature**2
        return (1 - share) * loss(images, logits, labels) + share * distance

    return value


def decoupled_distillation(
    loss: Loss,
    teacher: Teacher,
    share: float,
    temperature: float,
    beta: float,
    class_counts: Sequence[int] | None = None,
) -> Loss:
    """Return the same as `distillation`, with the distance over the non-target classes weighted by `beta`.

    The distance is TCKD + beta NCKD (Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, equation 7, alpha = 1).
    In Hinton's distance the factor of NCKD is the teacher's probability of the non-target classes, which is small if
    the teacher is confident. With two classes NCKD is 0. Raises ValueError for labels that are probabilities.
    """
    adjusted = _adjustment(class_counts)

    def value(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim != 1:
            raise ValueError(f"decoupled distillation needs labels of shape (N,), not {tuple(labels.shape)}")
        student_logits, teacher_logits = (adjusted(each / temperature) for each in (logits.float(), teacher(images)))
        others = ~functional.one_hot(labels, student_logits.shape[1]).bool()
        tckd = _divergence(_binary(student_logits, others), _binary(teacher_logits, others))
        non_target = [scaled[others].view(len(scaled), -1) for scaled in (student_logits, teacher_logits)]
        distance = (tckd + beta * _divergence(*non_target)) * temperature**2
        return (1 - share) * loss(images, logits, labels) + share * distance

    return value


def _binary(logits: Tensor, others: Tensor) -> Tensor:
    """Return logits (N, 2) of the label's class and of all others combined. others: bool mask (N, classes)."""
    label = logits[~others].view(-1, 1)
    rest = logits[others].view(len(logits), -1).logsumexp(1, keepdim=True)
    return torch.cat([label, rest], dim=1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(softmax(teacher) || softmax(student)), mean over the batch."""
    return functional.kl_div(
        functional.log_softmax(student, dim=1),
        functional.log_softmax(teacher, dim=1),
        reduction="batchmean",
        log_target=True,
    )
