"""Tests of importance scores, against formulas and on networks with units that have no effect."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from networks import Tangle, make_lively
from torch import Tensor, nn

from compress.pruning.channels import find_groups
from compress.pruning.config import Importance
from compress.pruning.groups import Group, slot_owners
from compress.pruning.importance import BATCH, importance_batches, unit_scores
from compress.pruning.surgery import zero_units
from compress.training.context import Context
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


def scores_of(kind: Importance, network: nn.Module, groups: tuple[Group, ...]) -> dict[str, np.ndarray]:
    return unit_scores(kind, network, groups, batches(), LOSS, seed=0)


@pytest.mark.parametrize("kind", ["l1", "l2", "taylor", "random"])
def test_every_unit_has_a_score_and_the_network_is_unchanged(
    kind: Importance, lively: tuple[nn.Module, tuple[Group, ...]]
) -> None:
    network, groups = lively
    before = copy.deepcopy(network.state_dict())
    scores = scores_of(kind, network, groups)
    assert {name: values.shape for name, values in scores.items()} == {group.name: (group.units,) for group in groups}
    assert all((values >= 0).all() and values.any() for values in scores.values())
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.parameters())
    again = scores_of(kind, network, groups)
    assert all(np.array_equal(scores[name], again[name]) for name in scores)


@pytest.mark.parametrize("kind", ["l1", "l2", "taylor"])
def test_zeroed_units_have_the_lowest_scores_except_at_random(
    kind: Importance, lively: tuple[nn.Module, tuple[Group, ...]]
) -> None:
    network, groups = lively
    group = next(group for group in groups if group.name == "hidden")
    zeroed = np.asarray([1, 5, 6, 20])
    zero_units(network, (group,), {group.name: zeroed})
    for _, slot, owner in slot_owners(network, (group,)):
        if slot.side == "in":
            owner.weight.data[:, zeroed] = 0  # type: ignore[union-attr, operator]
    scores = scores_of(kind, network, groups)["hidden"]
    random = scores_of("random", network, groups)["hidden"]
    assert scores[zeroed].max() == scores.min() < np.median(scores)
    assert random[zeroed].max() > np.median(random)


def test_taylor_is_the_loss_gradient_along_a_units_gates(lively: tuple[nn.Module, tuple[Group, ...]]) -> None:
    """Numerically: how the loss changes when all gates of a unit are scaled by 1 + e."""
    network, groups = lively
    scores = scores_of("taylor", network, groups)
    double = copy.deepcopy(network).double()
    for group in groups:
        owners = [(slot, owner) for _, slot, owner in slot_owners(double, (group,))]
        norms = [slot for slot, owner in owners if isinstance(owner, nn.BatchNorm2d)]
        gates = norms or [slot for slot, _ in owners if slot.side == "out"]
        unit, squares = 1, []
        for images, labels in batches():
            values = []
            for factor in (1 + 1e-6, 1 - 1e-6):
                scaled = copy.deepcopy(double)
                modules = dict(scaled.named_modules())
                for slot in gates:
                    for parameter in modules[slot.module].parameters(recurse=False):
                        parameter.data[slot.positions[unit]] *= factor
                with torch.no_grad():
                    values.append(nn.functional.cross_entropy(scaled(images.double()), labels).item())
            squares.append(((values[0] - values[1]) / 2e-6) ** 2)
        assert scores[group.name][unit] == pytest.approx(np.mean(squares), rel=1e-2, abs=1e-9), group.name


def test_magnitudes_are_norms_of_all_weights_that_read_or_write_a_unit(
    lively: tuple[nn.Module, tuple[Group, ...]],
) -> None:
    network, groups = lively
    hidden, head = network.hidden.weight.detach().numpy(), network.head.weight.detach().numpy()  # type: ignore[union-attr, operator]
    for kind, power in (("l1", 1), ("l2", 2)):
        expected = (np.abs(hidden) ** power).sum(1) + (np.abs(head) ** power).sum(0)
        scores = scores_of(kind, network, groups)["hidden"]  # type: ignore[arg-type]
        np.testing.assert_allclose(scores, expected / expected.mean(), rtol=1e-5)


def test_bn_scale_reads_factors_and_needs_norms(lively: tuple[nn.Module, tuple[Group, ...]]) -> None:
    network, groups = lively
    with pytest.raises(InputError, match="bn_scale needs a BatchNorm after"):
        scores_of("bn_scale", network, groups)
    group = next(group for group in groups if group.name == "grouped")
    factors = network.grouped_norm.weight.detach().abs().numpy().reshape(4, 6).sum(0)  # type: ignore[union-attr, operator]
    scores = scores_of("bn_scale", network, (group,))["grouped"]
    np.testing.assert_allclose(scores, factors / factors.mean(), rtol=1e-5)


def test_batches_are_normalised_images_of_the_train_split(make_context: Callable[..., Context]) -> None:
    context = make_context("1-prune")
    split = context.prepared("train")
    pairs = list(importance_batches(context))
    assert sum(len(labels) for _, labels in pairs) == len(split)
    assert max(len(labels) for _, labels in pairs) <= BATCH
    images = torch.cat([images for images, _ in pairs]).numpy()
    expected = (split.images.astype(np.float32) / 255 - 0.5) / 0.25  # the context's mean and std
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate([labels.numpy() for _, labels in pairs]), split.labels)
