"""Labels of channels: every element of a tensor has the label of the channel that it belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

KEPT = 0  # the label of what belongs to no channel, or to one that cannot be removed


class Labels:
    """Labels of channels, joined where channels must be removed together, with reasons where they cannot be removed."""

    def __init__(self) -> None:
        """Start without channels."""
        self._parents = [KEPT]
        self._reasons: dict[int, str] = {}  # by root

    def new(self, count: int) -> Tensor:
        """Return (count,): the labels of new channels."""
        start = len(self._parents)
        self._parents += range(start, start + count)
        return torch.arange(start, start + count)

    def root(self, label: int) -> int:
        """Return the label that represents all those joined with one; KEPT if they cannot be removed."""
        root = self._root(label)
        return KEPT if root in self._reasons else root

    def reason(self, label: int) -> str | None:
        """Return why a channel cannot be removed; None if it can."""
        return self._reasons.get(self._root(label)) if label else None

    def join(self, labels: Tensor, others: Tensor, reason: str) -> None:
        """Join the labels of two tensors of one shape; those that meet KEPT cannot be removed, for the given reason."""
        pairs = torch.stack([each.reshape(-1) for each in _smallest(labels, others)], dim=1)
        for one, other in torch.unique(pairs[pairs[:, 0] != pairs[:, 1]], dim=0).tolist():
            if KEPT in (one, other):
                self._keep(one or other, reason)
            else:
                self._join(one, other)

    def keep(self, labels: Tensor, reason: str) -> None:
        """Note that the channels of these labels cannot be removed."""
        for label in torch.unique(compact(labels)).tolist():
            if label != KEPT:
                self._keep(label, reason)

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def _join(self, one: int, other: int) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        if first == second:
            return
        self._parents[second] = first
        if second in self._reasons:
            self._reasons.setdefault(first, self._reasons.pop(second))

    def _keep(self, label: int, reason: str) -> None:
        self._reasons.setdefault(self._root(label), reason)


def varying(labels: Tensor) -> list[int]:
    """Return the dimensions along which labels differ."""
    for dim, stride in enumerate(labels.stride()):
        labels = labels if stride or not labels.shape[dim] else labels.narrow(dim, 0, 1)  # repeated by `expand`
    return [
        dim for dim, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True))
        if size > 1 and stride and bool((labels != labels.narrow(dim, 0, 1)).any())
    ]  # fmt: skip


def compact(labels: Tensor) -> Tensor:
    """Return labels with size 1 in each dimension along which they do not differ."""
    differing = varying(labels)
    for dim in range(labels.ndim):
        if dim not in differing and labels.shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels


def along(labels: Tensor, dim: int) -> Tensor | None:
    """Return (size,): the labels along one dimension; None if they differ along another one too."""
    if any(other != dim % labels.ndim for other in varying(labels)):
        return None
    for _ in range(dim % labels.ndim):
        labels = labels[0]
    while labels.ndim > 1:
        labels = labels[..., 0]
    return labels


def _smallest(labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors of one shape, reduced along the dimensions where neither differs."""
    differing = {*varying(labels), *varying(others)}
    for dim in range(labels.ndim):
        if dim not in differing:
            labels, others = labels.narrow(dim, 0, 1), others.narrow(dim, 0, 1)
    return labels, others
