"""Tests of channel groups, against those that the operators of small networks connect."""

from __future__ import annotations

import copy

import numpy as np
import torch
from networks import Chain, Tangle
from torch import Tensor, nn

from compress.models import mobilenet_v2
from compress.pruning.channels import find_groups
from compress.pruning.groups import slot_owners

EXAMPLE = torch.zeros(1, 3, 8, 8)


def test_the_groups_of_a_network_are_those_that_its_operators_connect() -> None:
    groups = {group.name: group for group in find_groups(Tangle().eval(), EXAMPLE)}
    modules = {name: {slot.module for slot in group.slots} for name, group in groups.items()}
    stem = next(name for name, members in modules.items() if "stem" in members)
    assert {"stem", "stem_norm", "depthwise", "pointwise", "pointwise_norm", "excite", "squeeze", "grouped"} <= modules[
        stem
    ]
    assert groups[stem].units == 4  # 16 channels, one of each of the 4 groups of the convolution that reads them
    grouped = next(name for name, members in modules.items() if members == {"grouped", "grouped_norm", "left", "right"})
    assert groups[grouped].units == 6
    assert (groups["left"].units, groups["right"].units) == (8, 12)
    assert modules["left"] == {"left", "last"}
    assert groups["right"].slots[1].positions.ravel().tolist() == list(range(8, 20))
    assert {slot.module: slot.positions.shape for slot in groups["last"].slots}["hidden"] == (12, 16)  # 4x4 pixels each
    assert "head" not in groups  # the classes stay


def test_channels_of_grouped_convolutions_are_units_together() -> None:
    groups = {group.name: group for group in find_groups(Chain().eval(), EXAMPLE)}
    assert {name: group.units for name, group in groups.items()} == {"a": 16, "b": 3, "c": 4, "d": 24}
    first = groups["b"].slots[0]
    np.testing.assert_array_equal(first.positions[0], np.arange(0, 24, 3))  # one channel of each of 8 groups


def test_a_second_trace_gives_the_same_groups() -> None:
    """A tracer that keeps state between networks loses groups of the second one."""
    network = mobilenet_v2.build(mobilenet_v2.Config(width=0.5), 5).eval()
    first, second = (find_groups(copy.deepcopy(network), torch.zeros(1, 3, 64, 64)) for _ in range(2))
    assert [group.name for group in first] == [group.name for group in second]
    for group, other in zip(first, second, strict=True):
        assert [slot.module for slot in group.slots] == [slot.module for slot in other.slots]


def test_bare_parameters_belong_to_groups() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 2)
            self.scale = nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, images: Tensor) -> Tensor:
            return self.head((self.conv(images) * self.scale).mean((2, 3)))

    network = Scaled()
    (group,) = find_groups(network, EXAMPLE)
    owners = {slot.module: (slot.dim, owner) for _, slot, owner in slot_owners(network, (group,))}
    assert owners["conv"] == (0, network.conv)
    assert owners["scale"] == (0, network.scale)


def test_channels_of_which_code_takes_a_part_are_kept() -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.layer(self.first(images)).mean((2, 3))[:, :4])

    assert [group.name for group in find_groups(Sliced(), EXAMPLE)] == ["first"]


def test_two_groups_that_begin_in_one_layer_have_different_names() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.head = nn.Linear(8, 2)

        def forward(self, images: Tensor) -> Tensor:
            wide = self.wide(images)
            return self.head((wide + torch.cat([self.a(images), self.b(images)], 1)).mean((2, 3)))

    groups = {group.name: group for group in find_groups(Halves(), EXAMPLE)}
    assert {name: group.units for name, group in groups.items()} == {"wide": 4, "b": 4}
    assert groups["b"].slots[1].positions.ravel().tolist() == [4, 5, 6, 7]
