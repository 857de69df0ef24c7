"""Channel removal: remove the units of groups from a network, and check the result."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.networks.shape import take_shape
from compress.pruning.groups import Group, Positions, slot_owners
from compress.pruning.tracing import NORMS
from runtimes.errors import CompressError

TOLERANCE = 1e-2  # of the largest logit: float32 sums in another order


def remove_units(network: nn.Module, groups: tuple[Group, ...], removed: Mapping[str, Positions]) -> nn.Module:
    """Remove units from a network, in place, and return it. removed: indices of units by group name."""
    modules = dict(network.named_modules())
    removals: dict[tuple[str, int], list[Positions]] = {}  # (tensor, dimension) -> positions
    for group in groups:
        for slot in group.slots:
            positions = slot.positions[removed.get(group.name, [])].ravel()
            if not positions.size:
                continue
            module = modules.get(slot.module)
            if module is None:
                removals.setdefault((slot.module, slot.dim), []).append(positions)
            elif slot.side == "in" and isinstance(module, (nn.Conv2d, nn.Linear)):
                local = positions % module.weight.shape[1]  # all groups of a convolution lose the same positions
                removals.setdefault((f"{slot.module}.weight", 1), []).append(local)
            else:
                for name, tensor in module.state_dict(prefix=f"{slot.module}.").items():
                    if tensor.ndim:
                        removals.setdefault((name, 0), []).append(positions)
    tensors = dict(network.state_dict())
    for (name, dim), lists_of_positions in removals.items():
        kept = np.setdiff1d(np.arange(tensors[name].shape[dim]), np.concatenate(lists_of_positions))
        tensors[name] = tensors[name].index_select(dim, torch.from_numpy(kept))
    return take_shape(network, tensors)


def zero_units(network: nn.Module, groups: tuple[Group, ...], removed: Mapping[str, Positions]) -> nn.Module:
    """Zero the output channels of the given units, in place, and return the network."""
    for group, slot, owner in slot_owners(network, groups):
        if slot.side == "out" and isinstance(owner, (nn.Conv2d, nn.Linear, *NORMS)):
            positions = torch.from_numpy(slot.positions[removed.get(group.name, [])].ravel())
            for parameter in owner.parameters(recurse=False):
                parameter.data[positions] = 0
    return network


@torch.no_grad()
def remove_units_checked(
    network: nn.Module, groups: tuple[Group, ...], removed: Mapping[str, Positions], example: Tensor
) -> nn.Module:
    """Remove units, in place, and return the network if its outputs equal those of a copy with the units zeroed.

    example: (N, C, H, W), with random values. Raises CompressError where outputs differ, because the groups were traced
    wrongly then. With norms over channels, outputs depend on the number of channels, so that only shapes are checked.
    """
    over_channels = any(isinstance(module, (nn.LayerNorm, nn.GroupNorm)) for module in network.modules())
    try:
        expected = zero_units(copy.deepcopy(network), groups, removed).eval()(example)
        outputs = remove_units(network, groups, removed).eval()(example)
    except (RuntimeError, IndexError) as error:
        raise CompressError(f"prune: the channels of this network were traced wrongly ({error})") from error
    difference = float((outputs - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not over_channels and difference > TOLERANCE:
        raise CompressError(
            f"prune: the channels of this network were traced wrongly (outputs differ by {difference:.2g} of the "
            "largest logit)"
        )
    return network
