"""Rules for the labels of an operator's outputs, given those of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.pruning.labels import KEPT, Labels, compact, varying

Operator: TypeAlias = Any  # an overload of torch.ops.aten, which has no type annotations
Arguments: TypeAlias = Any  # positional arguments of an operator: tensors, numbers, and lists of them
LabelsOf: TypeAlias = Callable[[Tensor], Tensor]

COPIES = ("clone", "detach", "alias", "_to_copy", "contiguous", "lift_fresh")
VIEWS = ("view", "_unsafe_view", "_reshape_alias", "reshape")
MOVES = ("permute", "transpose", "t", "unsqueeze", "squeeze", "expand")
PARTS = ("slice", "select", "split", "split_with_sizes", "unbind")
POOLS = ("max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d",
         "mkldnn_max_pool2d", "mkldnn_adaptive_avg_pool2d", "constant_pad_nd", "reflection_pad2d", "replication_pad2d",
         "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "_upsample_bilinear2d_aa",
         "upsample_bicubic2d")  # fmt: skip
REDUCTIONS = ("mean", "sum", "amax", "amin")
SOFTMAX = ("_softmax", "_log_softmax")
ELEMENTWISE = ("hardswish", "mish", "gelu", "zeros_like", "ones_like", "full_like")  # without torch's tag for these


class Rules:
    """Computes the labels of outputs. labels_of: labels of a tensor, zeros for one without channels."""

    def __init__(self, labels: Labels, labels_of: LabelsOf) -> None:
        """Keep both."""
        self._labels, self._of = labels, labels_of

    def outputs(self, operator: Operator, arguments: Arguments, outputs: list[Tensor], module: str) -> list[Tensor]:
        """Return the labels of each output of an operator. module: the name of the module that calls it.

        An operator without a rule keeps all channels that it reads.
        """
        name = operator.overloadpacket.__name__.rstrip("_")
        reason = f"{module} ({name.strip('_')})" if module else name.strip("_")
        if name in (*COPIES, *VIEWS, *MOVES):
            return [self._moved(operator, name, arguments, outputs[0], reason)]
        if name in PARTS:
            return self._parts(operator, arguments, reason)
        if name == "cat":
            return [self._joined(arguments, reason)]
        if torch.Tag.pointwise in operator.tags or name in ELEMENTWISE:
            return [self._elementwise(arguments, outputs[0], reason)]
        if name in POOLS:
            return [self._pooled(arguments[0], outputs[0], reason), *map(kept, outputs[1:])]
        if name in REDUCTIONS and len(arguments) > 1 and arguments[1]:
            return [self._reduced(name, arguments, outputs[0], reason)]
        if name in SOFTMAX and arguments[1] % arguments[0].ndim not in varying(self._of(arguments[0])):
            return [self._of(arguments[0])]
        self._keep(arguments, reason)
        return list(map(kept, outputs))

    def _keep(self, arguments: Arguments, reason: str) -> None:
        for tensor in tree_leaves(arguments):
            if isinstance(tensor, Tensor):
                self._labels.keep(self._of(tensor), reason)

    def _moved(self, operator: Operator, name: str, arguments: Arguments, output: Tensor, reason: str) -> Tensor:
        """Return moved labels; channels that fill several dimensions afterwards, as groups or heads do, are kept."""
        before = self._of(arguments[0])
        if name in COPIES:
            return before
        after: Tensor = before.reshape(output.shape) if name in VIEWS else operator(before, *arguments[1:])
        if len(varying(after)) > max(1, len(varying(before))):
            self._labels.keep(before, reason)
            return kept(output)
        return after

    def _parts(self, operator: Operator, arguments: Arguments, reason: str) -> list[Tensor]:
        """Return the labels of parts; channels that only some of the parts have are kept: code sets their number."""
        before = self._of(arguments[0])
        parts = [part for part in tree_leaves(operator(before, *arguments[1:])) if isinstance(part, Tensor)]
        every = torch.unique(compact(before))
        if all(torch.equal(torch.unique(compact(part)), every) for part in parts):
            return parts
        self._labels.keep(before, reason)
        return list(map(kept, parts))

    def _joined(self, arguments: Arguments, reason: str) -> Tensor:
        """Return concatenated labels; tokens of the same channels are joined."""
        parts = [self._of(tensor) for tensor in arguments[0] if tensor.ndim == arguments[0][0].ndim]
        dim = arguments[1] % parts[0].ndim if len(arguments) > 1 else 0
        differing = {other for part in parts for other in varying(part)}
        if differing and dim not in differing:
            for part in parts[1:]:
                self._labels.join(parts[0].narrow(dim, 0, 1), part.narrow(dim, 0, 1), reason)
        return torch.cat(parts, dim)

    def _elementwise(self, arguments: Arguments, output: Tensor, reason: str) -> Tensor:
        """Return the joined labels; a tensor that is repeated along the channels of another one keeps its own."""
        tensors = [tensor for tensor in tree_leaves(arguments) if isinstance(tensor, Tensor)]
        every = [self._of(tensor) for tensor in tensors]
        aligned = [labels.reshape((1,) * (output.ndim - labels.ndim) + labels.shape) for labels in every]
        differing = {dim for labels in aligned for dim in varying(labels)}
        joined: Tensor | None = None
        for labels in aligned:
            if any(labels.shape[dim] == 1 and output.shape[dim] > 1 for dim in differing):
                self._labels.keep(labels, reason)
                continue
            labels = labels.expand(output.shape)
            if joined is None or bool((compact(joined) == KEPT).all()):
                joined, labels = labels, joined if joined is not None else labels
            self._labels.join(joined, labels, reason)
        return kept(output) if joined is None else joined

    def _pooled(self, tensor: Tensor, output: Tensor, reason: str) -> Tensor:
        """Return the labels of an operator over height and width."""
        labels = self._of(tensor)
        if output.ndim != 4 or output.shape[:2] != tensor.shape[:2] or any(dim > 1 for dim in varying(labels)):
            self._labels.keep(labels, reason)
            return kept(output)
        return labels[:, :, :1, :1].expand(output.shape)

    def _reduced(self, name: str, arguments: Arguments, output: Tensor, reason: str) -> Tensor:
        """Return the labels of a reduction. A sum over channels stays the same without those that are zero."""
        labels = self._of(arguments[0])
        dims = [dim % labels.ndim for dim in arguments[1]]
        differing = set(varying(labels))
        if not differing.intersection(dims):
            return labels.amax(dims, keepdim=True).reshape(output.shape)
        if name != "sum" or not differing.issubset(dims):
            self._labels.keep(labels, reason)
        return kept(output)


def kept(tensor: Tensor) -> Tensor:
    """Return the labels of a tensor without channels."""
    return torch.full((), KEPT).expand(tensor.shape)
