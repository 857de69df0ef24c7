"""Find the channels of a network that can be removed, and say why others are kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compress.pruning.groups import Group, groups_of
from compress.pruning.surgery import remove_units_checked
from compress.pruning.tracing import CLASSES, ChannelTrace
from runtimes.errors import CompressError, InputError

IMAGES = 2


@dataclass(frozen=True)
class Channels:
    """The channels of a network. kept: reasons, by the name of a layer whose outputs cannot be removed."""

    groups: tuple[Group, ...]
    kept: dict[str, str]

    def reasons(self, most: int = 3) -> str:
        """Return the layers whose outputs are kept and why, in words; empty if there are none but the classifier."""
        by_reason: dict[str, list[str]] = {}
        for layer, reason in self.kept.items():
            if reason != CLASSES:
                by_reason.setdefault(reason, []).append(layer)
        texts = [f"{layers[0]}{f' and {len(layers) - 1} more' if layers[1:] else ''} because of {reason}"
                 for reason, layers in list(by_reason.items())[:most]]  # fmt: skip
        return "; ".join(texts) + ("; …" if len(by_reason) > most else "")


def find_groups(network: nn.Module, example: Tensor) -> tuple[Group, ...]:
    """Return the channel groups of a network; see `find_channels`."""
    return find_channels(network, example).groups


def find_channels(network: nn.Module, example: Tensor) -> Channels:
    """Return the channels that can be removed; the logits belong to no group.

    example: (N, C, H, W), on which the network runs. Half of the units of all groups are removed from a copy; groups
    where that fails, because the code of a module fixes their number, are kept. Raises InputError where the network
    cannot run on the example.
    """
    network.eval()
    try:
        trace = ChannelTrace(network, example)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise InputError(f"prune: this network can't be traced: {error}") from error
    groups, kept = groups_of(trace), trace.kept()
    problem = _problem(network, groups, example)
    if problem is None:
        return Channels(groups, kept)
    removable: tuple[Group, ...] = ()
    for group in groups:
        problem = _problem(network, (*removable, group), example)
        if problem is None:
            removable = *removable, group
        else:
            kept[group.name] = problem
    return Channels(removable, kept)


def _problem(network: nn.Module, groups: tuple[Group, ...], example: Tensor) -> str | None:
    """Return why half of the units of groups cannot be removed; None if they can."""
    images = torch.randn(IMAGES, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    removed = {group.name: np.arange(0, group.units, 2) for group in groups}
    try:
        remove_units_checked(copy.deepcopy(network), groups, removed, images)
    except CompressError as error:
        return str(error).removeprefix("prune: ")
    return None
