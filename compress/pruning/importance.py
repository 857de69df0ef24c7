"""Importance scores: how much accuracy is expected to depend on each unit of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compress.pruning.config import Importance
from compress.pruning.groups import Group, Slot, slot_owners
from compress.pruning.tracing import NORMS
from compress.training.batches import normalize
from compress.training.context import Context
from runtimes.errors import InputError

IMAGES, BATCH = 512, 32  # images for `taylor`, and per batch
Scores = dict[str, npt.NDArray[np.float64]]  # by group: (units,); with mean 1, except for `taylor`
Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (images, logits, labels) -> scalar


def unit_scores(
    kind: Importance, network: nn.Module, groups: tuple[Group, ...], batches: Batches, loss: Loss, seed: int
) -> Scores:
    """Return the importance of every unit of every group.

    l1, l2: norm of all weights that read or write the unit (Li et al., 2017). bn_scale: magnitude of BatchNorm's
    factors (Liu et al., 2017). taylor: squared first-order change of the loss, averaged over batches (Molchanov et
    al., 2019, equation 8, with gates after each BatchNorm). random: uniform, for comparison.
    batches: (images, labels), read by `taylor` only.
    Raises InputError where bn_scale meets a group without BatchNorm.
    """
    if kind == "random":
        rng = np.random.default_rng(seed)
        return {group.name: rng.uniform(0.5, 1.5, group.units) for group in groups}
    if kind == "taylor":
        return _taylor(network, groups, batches, loss)
    totals = {group.name: np.zeros(group.units) for group in groups}
    for group, slot, owner in slot_owners(network, groups):
        totals[group.name] += _magnitude(kind, slot, owner)
    if kind == "bn_scale":
        without_norm = [name for name, total in totals.items() if not total.any()]
        if without_norm:
            raise InputError(f"prune: importance bn_scale needs a BatchNorm after {without_norm[0]}; use l2 or taylor")
    return {name: total / max(total.mean(), 1e-30) for name, total in totals.items()}


def importance_batches(context: Context) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the normalised images (N, C, H, W) and labels (N,) for `taylor`, spread over the train split."""
    images = context.subset("train", IMAGES)
    assert images.labels is not None
    for start in range(0, len(images), BATCH):
        # Copies, because the files of a run are mapped read-only.
        pixels = torch.from_numpy(np.array(images.images[start : start + BATCH])).permute(0, 3, 1, 2)
        labels = torch.from_numpy(np.array(images.labels[start : start + BATCH]))
        yield normalize(pixels, context.preprocessing, "cpu"), labels


def _magnitude(kind: Importance, slot: Slot, owner: nn.Module | nn.Parameter) -> npt.NDArray[np.float64]:
    if isinstance(owner, NORMS):
        return _per_unit(slot, owner.weight.detach().abs()) if kind == "bn_scale" else np.zeros(len(slot.positions))
    if kind == "bn_scale" or not isinstance(owner, (nn.Conv2d, nn.Linear)):
        return np.zeros(len(slot.positions))
    magnitude = owner.weight.detach().abs() if kind == "l1" else owner.weight.detach() ** 2
    dims = [dim for dim in range(magnitude.ndim) if dim != (0 if slot.side == "out" else 1)]
    return _per_unit(slot, magnitude.sum(dims))


def _per_unit(slot: Slot, values: Tensor) -> npt.NDArray[np.float64]:
    """Return the sum of the values at each unit's positions; a grouped convolution stores its inputs for one group."""
    array = values.double().cpu().numpy()
    total: npt.NDArray[np.float64] = array[slot.positions % len(array)].sum(axis=1)
    return total


def _taylor(network: nn.Module, groups: tuple[Group, ...], batches: Batches, loss: Loss) -> Scores:
    """Return the mean over batches of (sum over a unit's gates of gate times gradient) squared."""
    totals = {group.name: np.zeros(group.units) for group in groups}
    gates = _gates(network, groups)
    count = 0
    network.eval()  # keeps BatchNorm's statistics
    for images, labels in batches:
        network.zero_grad()
        loss(images, network(images), labels).backward()  # type: ignore[no-untyped-call]
        for name, slots in gates.items():
            change = sum(_per_unit(slot, _first_order(owner)) for slot, owner in slots)
            totals[name] += np.square(change)
        count += 1
    network.zero_grad()
    return {name: total / max(count, 1) for name, total in totals.items()}


def _gates(network: nn.Module, groups: tuple[Group, ...]) -> dict[str, list[tuple[Slot, nn.Module]]]:
    """Return the modules that scale a group's channels: its norms or, without norms, the layers that compute it."""
    norms: dict[str, list[tuple[Slot, nn.Module]]] = {group.name: [] for group in groups}
    layers: dict[str, list[tuple[Slot, nn.Module]]] = {group.name: [] for group in groups}
    for group, slot, owner in slot_owners(network, groups):
        if isinstance(owner, NORMS):
            norms[group.name].append((slot, owner))
        elif slot.side == "out" and isinstance(owner, (nn.Conv2d, nn.Linear)):
            layers[group.name].append((slot, owner))
    return {name: norms[name] or layers[name] for name in norms}


def _first_order(owner: nn.Module) -> Tensor:
    """Return (C,): parameter times gradient, summed for each output channel."""
    total = torch.zeros(len(owner.weight))  # type: ignore[arg-type]
    for parameter in owner.parameters(recurse=False):
        if parameter.grad is not None:
            product = parameter.detach() * parameter.grad
            total += (product.flatten(1).sum(1) if product.ndim > 1 else product).cpu()
    return total
