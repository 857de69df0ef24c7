"""Channel groups: channels of different modules that must be removed together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import nn

from compress.pruning.labels import KEPT, along, varying
from compress.pruning.tracing import ChannelTrace

Side = Literal["out", "in"]
Positions = npt.NDArray[np.int64]
Place: TypeAlias = tuple[str, Side, int]  # module or parameter, side, dimension


@dataclass(frozen=True)
class Slot:
    """The inputs or outputs of a module, or a dimension of a bare parameter, that shrink with a group.

    module: dotted name of the module or parameter. positions: (units, positions of each unit) along that side.
    dim: dimension of a bare parameter; 0 for modules.
    """

    module: str
    side: Side
    positions: Positions
    dim: int = 0


@dataclass(frozen=True)
class Group:
    """Units that can be removed one by one; each has positions in every slot.

    name: of the first layer whose outputs belong to the group. A unit is one channel; where a convolution of the group
    is grouped, it is one channel of each convolution group, because these must stay equally large.
    """

    name: str
    units: int
    slots: tuple[Slot, ...]


def groups_of(trace: ChannelTrace) -> tuple[Group, ...]:
    """Return the groups of a traced network, in the order in which their first layers run."""
    places = _places(trace)
    units: dict[int, dict[Place, list[int]]] = {}  # by label: positions of the unit in each place
    for place, labels in places.items():
        for position, label in enumerate(labels):
            if label != KEPT:
                units.setdefault(label, {}).setdefault(place, []).append(position)
    alike: dict[tuple[tuple[Place, int], ...], list[dict[Place, list[int]]]] = {}  # units with the same places
    for unit in units.values():
        alike.setdefault(tuple((place, len(positions)) for place, positions in unit.items()), []).append(unit)
    groups: dict[str, Group] = {}
    for members in alike.values():
        created = [module for module, side, _ in members[0] if side == "out" and module in trace.created]
        name = next((module for module in created if module not in groups), None)
        if name is not None and len(members) > 1:
            first = sorted(members[0], key=lambda place: place[:2] != (name, "out"))
            groups[name] = Group(name, len(members), tuple(
                Slot(module, side, np.asarray([unit[module, side, dim] for unit in members], np.int64), dim)
                for module, side, dim in first
            ))  # fmt: skip
    return tuple(groups.values())


def _places(trace: ChannelTrace) -> dict[Place, list[int]]:
    """Return the labels along each side of each module and along a dimension of each bare parameter.

    Channels that a parameter does not have along one dimension are kept.
    """
    in_layers = {label for labels in trace.sides.values() for label in trace.roots(labels).tolist()} - {KEPT}
    parameters = {}
    for name, labels in trace.parameters.items():
        roots = trace.roots(labels)
        dims = varying(roots)
        if in_layers.isdisjoint(roots.flatten().tolist()):
            continue
        if len(dims) != 1:
            trace.labels.keep(labels, name)
            continue
        parameters[name] = dims[0], labels
    places: dict[Place, list[int]] = {
        (module, side, 0): trace.roots(labels).tolist() for (module, side), labels in trace.sides.items()
    }
    for name, (dim, labels) in parameters.items():
        line = along(trace.roots(labels), dim)
        if line is not None:
            places[name, "out", dim] = line.tolist()
    return places


def slot_owners(
    network: nn.Module, groups: tuple[Group, ...]
) -> Iterator[tuple[Group, Slot, nn.Module | nn.Parameter]]:
    """Yield every slot with its group and its module or parameter."""
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    for group in groups:
        for slot in group.slots:
            yield group, slot, modules.get(slot.module) or parameters[slot.module]
