"""Groups: the channels of different modules that can only go together, found from the traced graph."""

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
    """A side of a module (or a parameter) that loses positions with its group.

    module: dotted name. dim: of a bare parameter. positions: (units, positions of each) along that side.
    """

    module: str
    side: Side
    positions: Positions
    dim: int = 0


@dataclass(frozen=True)
class Group:
    """Units that can be cut one by one, each with its positions in every slot.

    name: of the first layer whose outputs they are. A unit is a channel, or, where a convolution has groups, one
    channel of each of them, as groups have to stay equally large.
    """

    name: str
    units: int
    slots: tuple[Slot, ...]


def find_groups(network: nn.Module, example: Tensor) -> tuple[Group, ...]:
    """Return the groups of a network that maps `example` (N, 3, H, W) to logits; the logits' own channels are in none.

    Torch-Pruning's dependency graph does the tracing. Raises InputError where it can't follow the network.
    """
    network.eval()
    names = {module: name for name, module in network.named_modules()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
            found = list(graph.get_all_groups(ignored_layers=[_classifier(network, example)]))
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise InputError(f"prune: this network can't be traced: {error}") from error
    parameters = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = [_group(graph, one, names, parameters) for one in found]
    return tuple(group for group in groups if group is not None and group.units > 1)


def _classifier(network: nn.Module, example: Tensor) -> nn.Module:
    """Return the layer whose outputs are the logits."""
    calls, logits = run_layers(network, example)
    last, output = calls[-1]
    if output.shape[1] != logits.shape[1]:
        raise InputError(f"prune: the last layer has {output.shape[1]} outputs, the network {logits.shape[1]} logits")
    return last


def _group(graph: Any, found: Any, names: dict[nn.Module, str], parameters: dict[int, str]) -> Group | None:
    root = found[0].dep.target.module
    channels = len(found[0].idxs)
    units = channels // _conv_groups(found, graph)
    slots = []
    for item in found:
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


def _conv_groups(found: Any, graph: Any) -> int:
    """Return into how many equal parts the channels fall because convolutions have groups, 1 for depthwise ones."""
    parts = 1
    for item in found:
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


def modules_of(network: nn.Module, groups: tuple[Group, ...]) -> Iterator[tuple[Group, Slot, nn.Module | nn.Parameter]]:
    """Yield every slot with what it belongs to."""
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    for group in groups:
        for slot in group.slots:
            yield group, slot, modules.get(slot.module) or parameters[slot.module]
