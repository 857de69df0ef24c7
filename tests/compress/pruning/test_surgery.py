"""Tests of channel removal: removing units equals zeroing them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Tangle, make_lively
from torch import nn

from compress.models import efficientnet_lite, mobilenet_v2, mobilenet_v3, resnet
from compress.networks.shape import take_shape
from compress.pruning.channels import find_groups
from compress.pruning.groups import Group, Slot
from compress.pruning.surgery import remove_units, remove_units_checked, zero_units
from runtimes.errors import CompressError

FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "tangle": Tangle,
    "mobilenet_v2": lambda: mobilenet_v2.build(mobilenet_v2.Config(width=0.5), 5),
    "mobilenet_v3_small": lambda: mobilenet_v3.build(mobilenet_v3.Config(size="small"), 5),
    "mobilenet_v3_large": lambda: mobilenet_v3.build(mobilenet_v3.Config(size="large"), 5),
    "resnet18": lambda: resnet.build(resnet.Config(depth=18), 5),
    "resnet50": lambda: resnet.build(resnet.Config(depth=50), 5),
    "efficientnet_lite0": lambda: efficientnet_lite.build(efficientnet_lite.Config(size=0), 5),
}


def example(family: str) -> torch.Tensor:
    side = 8 if family == "tangle" else 64
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def choose(groups: tuple[Group, ...], seed: int, share: float = 0.5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {group.name: rng.choice(group.units, int(group.units * share), replace=False) for group in groups}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_removing_zeroed_units_keeps_the_outputs(family: str) -> None:
    images = example(family)
    network = make_lively(FAMILIES[family]())
    groups = find_groups(network, images[:1])
    removed = choose(groups, seed=0)
    zero_units(network, groups, removed)
    expected = network(images).detach()
    size = sum(parameter.numel() for parameter in network.parameters())
    pruned = remove_units(network, groups, removed)
    torch.testing.assert_close(pruned(images).detach(), expected, rtol=1e-3, atol=1e-4)
    assert sum(parameter.numel() for parameter in pruned.parameters()) < 0.5 * size
    fresh = take_shape(FAMILIES[family]().eval(), pruned.state_dict())
    torch.testing.assert_close(fresh(images), pruned(images), rtol=0, atol=0)
    pruned.train()(images).sum().backward()  # it can be trained
    assert all(
        parameter.grad is not None and parameter.grad.shape == parameter.shape for parameter in pruned.parameters()
    )


@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 0.9))
@settings(max_examples=30)
def test_any_units_of_any_groups_can_be_removed(seed: int, share: float) -> None:
    images = example("tangle")
    network = make_lively(Tangle(), seed)
    groups = find_groups(network, images[:1])
    removed = choose(groups, seed, share)
    zero_units(network, groups, removed)
    expected = network(images).detach()
    torch.testing.assert_close(remove_units(network, groups, removed)(images).detach(), expected, rtol=1e-3, atol=1e-4)


def test_wrong_groups_are_detected() -> None:
    images, network = example("tangle"), make_lively(Tangle())
    groups = find_groups(network, images[:1])
    crossed = tuple(replace(group, slots=(_crossed(group.slots[0]), *group.slots[1:])) for group in groups)
    with pytest.raises(CompressError, match="outputs differ by"):
        remove_units_checked(network, crossed, choose(groups, 0), images)


def _crossed(slot: Slot) -> Slot:
    return replace(slot, positions=slot.positions[::-1].copy())


def test_right_groups_pass_the_check() -> None:
    images, network = example("tangle"), make_lively(Tangle())
    groups = find_groups(network, images[:1])
    unpruned = network(images).detach()
    pruned = remove_units_checked(network, groups, choose(groups, 0), images)
    assert float((pruned(images).detach() - unpruned).abs().max()) > 0.01  # the removed units had an effect
