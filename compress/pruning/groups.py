"""Channel groups: channels of different modules that must be removed together, found from the traced graph."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch_pruning
from torch import Tensor, nn

from compress.networks.layers import run_layers
from runtimes.errors import InputError

Side = Literal["out", "in"]
Positions = npt.NDArray[np.int64]


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


def find_groups(network: nn.Module, example: Tensor) -> tuple[Group, ...]:
    """Return the channel groups of a network; the logits belong to none.

    example: (N, C, H, W), used to trace the network with Torch-Pruning's dependency graph.
    Raises InputError where the network can't be traced.
    """
    network.eval()
    names = {module: name for name, module in network.named_modules()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
            traced = list(graph.get_all_groups(ignored_layers=[_classifier(network, example)]))
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise InputError(f"prune: this network can't be traced: {error}") from error
    parameters = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = [_group(graph, dependencies, names, parameters) for dependencies in traced]
    return tuple(group for group in groups if group.units > 1)


def _classifier(network: nn.Module, example: Tensor) -> nn.Module:
    """Return the layer whose outputs are the logits."""
    calls, logits = run_layers(network, example)
    last, output = calls[-1]
    if output.shape[1] != logits.shape[1]:
        raise InputError(f"prune: the last layer has {output.shape[1]} outputs, the network {logits.shape[1]} logits")
    return last


# `graph` and `dependencies` are a DependencyGraph and a Group of Torch-Pruning, which has no type annotations.


def _group(graph: Any, dependencies: Any, names: dict[nn.Module, str], parameters: dict[int, str]) -> Group:
    root = dependencies[0].dep.target.module
    channels = len(dependencies[0].idxs)
    units = channels // _convolution_groups(dependencies)
    slots = []
    for item in dependencies:
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            name, dim = parameters[id(module)], int(item.dep.target.pruning_dim or 0)
        elif module in names and any(True for _ in module.parameters(recurse=False)):
            name, dim = names[module], 0
        else:
            continue  # an operation without parameters
        side: Side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        slots.append(Slot(name, side, _positions(item.idxs, item.root_idxs, units), dim))
    return Group(names[root], units, tuple(slots))


def _convolution_groups(dependencies: Any) -> int:
    """Return into how many equal parts grouped convolutions divide the channels; a depthwise one counts as 1."""
    parts = 1
    for item in dependencies:
        module = item.dep.target.module
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.weight.shape[1] > 1:
            parts = int(np.lcm(parts, module.groups))
    return parts


def _positions(indices: list[int], roots: list[int], units: int) -> Positions:
    """Return (units, k): the positions of each unit, whose channels repeat with the period `units`."""
    by_unit: dict[int, list[int]] = defaultdict(list)
    for index, root in zip(indices, roots, strict=True):
        by_unit[root % units].append(index)
    return np.asarray([by_unit[unit] for unit in range(units)], np.int64)


def slot_owners(
    network: nn.Module, groups: tuple[Group, ...]
) -> Iterator[tuple[Group, Slot, nn.Module | nn.Parameter]]:
    """Yield every slot with its group and its module or parameter."""
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    for group in groups:
        for slot in group.slots:
            yield group, slot, modules.get(slot.module) or parameters[slot.module]
