"""Groups and cutting: what is worth nothing can go, and the answers stay."""

from __future__ import annotations

import copy
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
from compress.pruning.groups import Group, Slot, find_groups
from compress.pruning.surgery import checked_cut, cut, silence
from runtimes.errors import CompressError, InputError

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
    return {one.name: rng.choice(one.units, int(one.units * share), replace=False) for one in groups}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_units_that_give_zeros_can_go_and_the_answers_stay(family: str) -> None:
    images = example(family)
    network = make_lively(FAMILIES[family]())
    groups = find_groups(network, images[:1])
    removed = choose(groups, seed=0)
    silence(network, groups, removed)
    expected = network(images).detach()
    size = sum(parameter.numel() for parameter in network.parameters())
    narrower = cut(network, groups, removed)
    torch.testing.assert_close(narrower(images).detach(), expected, rtol=1e-3, atol=1e-4)
    assert sum(parameter.numel() for parameter in narrower.parameters()) < 0.5 * size
    fresh = take_shape(FAMILIES[family]().eval(), narrower.state_dict())
    torch.testing.assert_close(fresh(images), narrower(images), rtol=0, atol=0)
    narrower.train()(images).sum().backward()  # it can be trained on
    assert all(one.grad is not None and one.grad.shape == one.shape for one in narrower.parameters())


@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 0.9))
@settings(max_examples=30, deadline=None)
def test_any_units_of_any_groups_can_go(seed: int, share: float) -> None:
    images = example("tangle")
    network = make_lively(Tangle(), seed)
    groups = find_groups(network, images[:1])
    removed = choose(groups, seed, share)
    silence(network, groups, removed)
    expected = network(images).detach()
    torch.testing.assert_close(cut(network, groups, removed)(images).detach(), expected, rtol=1e-3, atol=1e-4)


def test_the_groups_of_a_network_are_those_that_its_operators_tie() -> None:
    groups = {one.name: one for one in find_groups(Tangle().eval(), example("tangle")[:1])}
    modules = {name: {slot.module for slot in one.slots} for name, one in groups.items()}
    stem = next(name for name, one in modules.items() if "stem" in one)
    assert {"stem", "stem_norm", "depthwise", "pointwise", "pointwise_norm", "excite", "squeeze", "grouped"} <= modules[
        stem
    ]
    assert groups[stem].units == 4  # 16 channels, one of each of the 4 groups of the convolution that reads them
    grouped = next(name for name, one in modules.items() if one == {"grouped", "grouped_norm", "left", "right"})
    assert groups[grouped].units == 6
    assert (groups["left"].units, groups["right"].units) == (8, 12)
    assert modules["left"] == {"left", "last"}
    assert groups["right"].slots[1].positions.ravel().tolist() == list(range(8, 20))
    assert {slot.module: slot.positions.shape for slot in groups["last"].slots}["hidden"] == (12, 16)  # 4x4 pixels each
    assert not any("head" in one and name == "head" for name, one in modules.items())  # the classes stay


def test_taking_all_groups_twice_gives_the_same() -> None:
    """A tracer that remembers what it has seen before loses groups of the second network."""
    network = FAMILIES["mobilenet_v2"]().eval()
    first, second = (find_groups(copy.deepcopy(network), example("mobilenet_v2")[:1]) for _ in range(2))
    assert [one.name for one in first] == [one.name for one in second]
    for one, other in zip(first, second, strict=True):
        assert [slot.module for slot in one.slots] == [slot.module for slot in other.slots]


def test_a_network_that_can_not_be_traced_is_told() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.mean((2, 3)))[:, :2]

    with pytest.raises(InputError, match="the last layer has 4 outputs, the network 2 logits"):
        find_groups(Odd(), torch.zeros(1, 3, 8, 8))


def test_groups_that_are_wrong_are_noticed() -> None:
    """Torch-Pruning 1.6.1 ties the wrong channels where a concat is flattened."""

    class Flattened(Tangle):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.hidden = nn.Identity(), nn.Linear(20 * 16, 32)

    images, network = example("tangle"), make_lively(Flattened())
    groups = find_groups(network, images[:1])
    with pytest.raises(CompressError, match="were traced wrongly"):
        checked_cut(network, groups, choose(groups, 0), images)
    network = make_lively(Tangle())
    groups = find_groups(network, images[:1])
    crossed = tuple(replace(one, slots=(_crossed(one.slots[0]), *one.slots[1:])) for one in groups)
    with pytest.raises(CompressError, match="answers differ by"):
        checked_cut(network, crossed, choose(groups, 0), images)


def _crossed(slot: Slot) -> Slot:
    return replace(slot, positions=slot.positions[::-1].copy())


def test_groups_that_are_right_pass() -> None:
    images, network = example("tangle"), make_lively(Tangle())
    groups = find_groups(network, images[:1])
    whole = network(images).detach()
    narrower = checked_cut(network, groups, choose(groups, 0), images)
    assert float((narrower(images).detach() - whole).abs().max()) > 0.01  # they were worth something
