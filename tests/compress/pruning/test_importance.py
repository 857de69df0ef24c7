"""Importance: by formula, and on networks in which some channels are known to be worth nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from networks import Tangle, make_lively
from torch import Tensor, nn

from compress.pruning.config import Importance
from compress.pruning.groups import Group, find_groups, modules_of
from compress.pruning.importance import scores
from compress.pruning.surgery import silence
from compress.training.losses import cross_entropy
from runtimes.errors import InputError

LOSS = cross_entropy(0.0)


def batches(count: int = 3) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, 5, (8,), generator=generator)


@pytest.fixture
def lively() -> tuple[nn.Module, tuple[Group, ...]]:
    torch.manual_seed(0)
    network = make_lively(Tangle())
    return network, find_groups(network, torch.zeros(1, 3, 8, 8))


def worth(kind: Importance, network: nn.Module, groups: tuple[Group, ...]) -> dict[str, np.ndarray]:
    return scores(kind, network, groups, batches(), LOSS, seed=0)


@pytest.mark.parametrize("kind", ["l1", "l2", "taylor", "random"])
def test_every_unit_has_a_number_and_the_network_stays(
    kind: Importance, lively: tuple[nn.Module, tuple[Group, ...]]
) -> None:
    network, groups = lively
    before = copy.deepcopy(network.state_dict())
    found = worth(kind, network, groups)
    assert {name: one.shape for name, one in found.items()} == {group.name: (group.units,) for group in groups}
    assert all((one >= 0).all() and one.any() for one in found.values())
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.parameters())
    again = worth(kind, network, groups)
    assert all(np.array_equal(found[name], again[name]) for name in found)


@pytest.mark.parametrize("kind", ["l1", "l2", "taylor"])
def test_units_that_give_zeros_are_worth_least_and_random_does_not_know(
    kind: Importance, lively: tuple[nn.Module, tuple[Group, ...]]
) -> None:
    network, groups = lively
    group = next(one for one in groups if one.name == "hidden")
    dead = np.asarray([1, 5, 6, 20])
    silence(network, (group,), {group.name: dead})
    for _, slot, owner in modules_of(network, (group,)):
        if slot.side == "in":
            owner.weight.data[:, dead] = 0  # type: ignore[union-attr, operator]
    found, blind = (worth(one, network, groups)["hidden"] for one in (kind, "random"))  # type: ignore[arg-type]
    assert found[dead].max() == found.min() < np.median(found)
    assert blind[dead].max() > np.median(blind)


def test_taylor_is_the_loss_gradient_along_a_units_gates(lively: tuple[nn.Module, tuple[Group, ...]]) -> None:
    """Numerically: how the loss changes when all gates of a unit are scaled by 1 + e."""
    network, groups = lively
    found = worth("taylor", network, groups)
    double = copy.deepcopy(network).double()
    for group in groups:
        gates = [(slot, owner) for one, slot, owner in modules_of(double, groups) if one.name == group.name]
        norms = [(slot, owner) for slot, owner in gates if isinstance(owner, nn.BatchNorm2d)]
        layers = norms or [(slot, owner) for slot, owner in gates if slot.side == "out"]
        unit, squares = 1, []
        for images, labels in batches():
            values = []
            for factor in (1 + 1e-6, 1 - 1e-6):
                scaled = copy.deepcopy(double)
                modules = dict(scaled.named_modules())
                for slot, _ in layers:
                    for parameter in modules[slot.module].parameters(recurse=False):
                        parameter.data[slot.positions[unit]] *= factor
                with torch.no_grad():
                    values.append(nn.functional.cross_entropy(scaled(images.double()), labels).item())
            squares.append(((values[0] - values[1]) / 2e-6) ** 2)
        assert found[group.name][unit] == pytest.approx(np.mean(squares), rel=1e-2, abs=1e-9), group.name


def test_magnitudes_are_the_norms_of_all_weights_that_a_unit_has_a_part_in(
    lively: tuple[nn.Module, tuple[Group, ...]],
) -> None:
    network, groups = lively
    hidden, head = network.hidden.weight.detach().numpy(), network.head.weight.detach().numpy()  # type: ignore[union-attr, operator]
    for kind, power in (("l1", 1), ("l2", 2)):
        expected = (np.abs(hidden) ** power).sum(1) + (np.abs(head) ** power).sum(0)
        np.testing.assert_allclose(worth(kind, network, groups)["hidden"], expected / expected.mean(), rtol=1e-5)  # type: ignore[arg-type]


def test_bn_scale_reads_factors_and_needs_norms(lively: tuple[nn.Module, tuple[Group, ...]]) -> None:
    network, groups = lively
    with pytest.raises(InputError, match="bn_scale needs a BatchNorm behind"):
        worth("bn_scale", network, groups)
    group = next(one for one in groups if one.name == "grouped")
    factors = network.grouped_norm.weight.detach().abs().numpy().reshape(4, 6).sum(0)  # type: ignore[union-attr, operator]
    found = worth("bn_scale", network, (group,))["grouped"]
    np.testing.assert_allclose(found, factors / factors.mean(), rtol=1e-5)
