"""What the units of a group are worth: how much accuracy goes with each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compress.pruning.config import Importance
from compress.pruning.groups import Group, Slot, modules_of
from compress.pruning.surgery import NORMS
from runtimes.errors import InputError

Scores = dict[str, npt.NDArray[np.float64]]  # by group: one number per unit, its mean over the group 1 but for `taylor`
Batches = Iterable[tuple[Tensor, Tensor]]


def scores(
    kind: Importance,
    network: nn.Module,
    groups: tuple[Group, ...],
    batches: Batches,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    seed: int,
) -> Scores:
    """Return what every unit of every group is worth.

    l1, l2: norm of all weights that a unit has a part in (Li et al., 2017). bn_scale: of BatchNorm's factors (Liu et
    al., 2017). taylor: squared first-order change of the loss, mean over batches (Molchanov et al., 2019, equation 8,
    on the gates behind each BatchNorm). random: from the seed, the baseline that others have to beat.
    batches: (images, labels), read by `taylor` only.
    """
    if kind == "random":
        rng = np.random.default_rng(seed)
        return {group.name: rng.uniform(0.5, 1.5, group.units) for group in groups}
    if kind == "taylor":
        return _taylor(network, groups, batches, loss)
    found = {group.name: np.zeros(group.units) for group in groups}
    for group, slot, owner in modules_of(network, groups):
        found[group.name] += _magnitude(kind, slot, owner)
    if kind == "bn_scale" and any(not worth.any() for worth in found.values()):
        odd = next(name for name, worth in found.items() if not worth.any())
        raise InputError(f"prune: importance bn_scale needs a BatchNorm behind {odd}; take l2 or taylor")
    return {name: worth / max(worth.mean(), 1e-30) for name, worth in found.items()}


def _magnitude(kind: Importance, slot: Slot, owner: nn.Module | nn.Parameter) -> npt.NDArray[np.float64]:
    if isinstance(owner, NORMS):
        return _per_unit(slot, owner.weight.detach().abs()) if kind == "bn_scale" else np.zeros(len(slot.positions))
    if kind == "bn_scale" or not isinstance(owner, (nn.Conv2d, nn.Linear)):
        return np.zeros(len(slot.positions))
    size = owner.weight.detach().abs() if kind == "l1" else owner.weight.detach() ** 2
    dims = [dim for dim in range(size.ndim) if dim != (0 if slot.side == "out" else 1)]
    return _per_unit(slot, size.sum(dims))


def _per_unit(slot: Slot, values: Tensor) -> npt.NDArray[np.float64]:
    """Sum the values at a unit's positions; a grouped convolution's inputs are stored for one group only."""
    array = values.double().cpu().numpy()
    total: npt.NDArray[np.float64] = array[slot.positions % len(array)].sum(axis=1)
    return total


def _taylor(
    network: nn.Module, groups: tuple[Group, ...], batches: Batches, loss: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Scores:
    """Return the mean over batches of (sum over a unit's gates of gate times gradient) squared."""
    found = {group.name: np.zeros(group.units) for group in groups}
    gates = _gates(network, groups)
    count = 0
    network.eval()  # statistics of BatchNorm stay as they are
    for images, labels in batches:
        network.zero_grad()
        loss(images, network(images), labels).backward()  # type: ignore[no-untyped-call]
        for name, slots in gates.items():
            change = sum(_per_unit(slot, _first_order(owner)) for slot, owner in slots)
            found[name] += np.square(change)
        count += 1
    network.zero_grad()
    return {name: worth / max(count, 1) for name, worth in found.items()}


def _gates(network: nn.Module, groups: tuple[Group, ...]) -> dict[str, list[tuple[Slot, nn.Module]]]:
    """Return where a group's channels are scaled: its norms, or, where it has none, the layers that compute it."""
    norms: dict[str, list[tuple[Slot, nn.Module]]] = {group.name: [] for group in groups}
    layers: dict[str, list[tuple[Slot, nn.Module]]] = {group.name: [] for group in groups}
    for group, slot, owner in modules_of(network, groups):
        if isinstance(owner, NORMS):
            norms[group.name].append((slot, owner))
        elif slot.side == "out" and isinstance(owner, (nn.Conv2d, nn.Linear)):
            layers[group.name].append((slot, owner))
    return {name: norms[name] or layers[name] for name in norms}


def _first_order(owner: nn.Module) -> Tensor:
    """Return parameter times gradient, summed for each output channel (C,)."""
    total = torch.zeros(len(owner.weight))  # type: ignore[arg-type]
    for parameter in owner.parameters(recurse=False):
        if parameter.grad is not None:
            total += (
                (parameter.detach() * parameter.grad).flatten(1).sum(1).cpu()
                if parameter.ndim > 1
                else (parameter.detach() * parameter.grad).cpu()
            )
    return total
