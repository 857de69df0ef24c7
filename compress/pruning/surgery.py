"""Cutting: a plan of what stays, and networks that take the shape of their weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.networks.shape import take_shape
from compress.pruning.groups import Group, Positions, modules_of
from runtimes.errors import CompressError

SAME = 1e-2  # of the largest logit; float32 sums in another order
NORMS = (nn.BatchNorm2d, nn.BatchNorm1d, nn.PReLU, nn.LayerNorm, nn.GroupNorm)


def cut(network: nn.Module, groups: tuple[Group, ...], removed: Mapping[str, Positions]) -> nn.Module:
    """Remove units from a network, in place, and return it. removed: units by their group's name."""
    modules = dict(network.named_modules())
    gone: dict[tuple[str, int], list[Positions]] = {}  # (tensor, dimension) -> positions
    for group in groups:
        for slot in group.slots:
            positions = slot.positions[removed.get(group.name, [])].ravel()
            if not positions.size:
                continue
            module = modules.get(slot.module)
            if module is None:
                gone.setdefault((slot.module, slot.dim), []).append(positions)
            elif slot.side == "in" and isinstance(module, (nn.Conv2d, nn.Linear)):
                local = positions % module.weight.shape[1]  # groups of a convolution lose the same places
                gone.setdefault((f"{slot.module}.weight", 1), []).append(local)
            else:
                for name, tensor in module.state_dict(prefix=f"{slot.module}.").items():
                    if tensor.ndim:
                        gone.setdefault((name, 0), []).append(positions)
    tensors = dict(network.state_dict())
    for (name, dim), positions_of in gone.items():
        lost = np.unique(np.concatenate(positions_of))
        kept = np.setdiff1d(np.arange(tensors[name].shape[dim]), lost)
        tensors[name] = tensors[name].index_select(dim, torch.from_numpy(kept))
    return take_shape(network, tensors)


def silence(network: nn.Module, groups: tuple[Group, ...], removed: Mapping[str, Positions]) -> nn.Module:
    """Let units give zeros wherever their channels are made, in place, and return the network."""
    for group, slot, owner in modules_of(network, groups):
        if slot.side == "out" and isinstance(owner, (nn.Conv2d, nn.Linear, *NORMS)):
            positions = torch.from_numpy(slot.positions[removed.get(group.name, [])].ravel())
            for parameter in owner.parameters(recurse=False):
                parameter.data[positions] = 0
    return network


@torch.no_grad()
def checked_cut(
    network: nn.Module, groups: tuple[Group, ...], removed: Mapping[str, Positions], example: Tensor
) -> nn.Module:
    """Return the cut network, in place, if it answers as the whole one does when the cut units give zeros.

    Raises CompressError where it does not: then the groups were traced wrongly, which nothing else would show. Networks
    with norms over channels have other answers without a channel; of these only the shapes are checked.
    """
    over_channels = any(isinstance(module, (nn.LayerNorm, nn.GroupNorm)) for module in network.modules())
    try:
        expected = silence(copy.deepcopy(network), groups, removed).eval()(example)
        found = cut(network, groups, removed).eval()(example)
    except (RuntimeError, IndexError) as error:
        raise CompressError(f"prune: the channels of this network were traced wrongly ({error})") from error
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not over_channels and difference > SAME:
        raise CompressError(
            f"prune: the channels of this network were traced wrongly (answers differ by {difference:.2g})"
        )
    return network
