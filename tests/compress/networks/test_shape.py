"""Tests of fitting a network to narrower weights."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import Tangle
from torch import nn

from compress.networks.shape import take_shape
from runtimes.errors import InputError


def test_tensors_that_do_not_fit_are_refused_by_name() -> None:
    tensors = dict(Tangle().state_dict())
    with pytest.raises(InputError, match="weights are of another network: only one of the two has 'extra'"):
        take_shape(Tangle(), {**tensors, "extra": torch.zeros(1)})
    with pytest.raises(InputError, match=r"don't fit: head.weight is \(9, 32\), not \(5, 32\)"):
        take_shape(Tangle(), {**tensors, "head.weight": torch.zeros(9, 32)})
    with pytest.raises(InputError, match=r"don't fit: head.bias is \(5, 1\)"):
        take_shape(Tangle(), {**tensors, "head.bias": torch.zeros(5, 1)})


@pytest.mark.parametrize(
    ("wide", "narrow", "channels"),
    [
        (nn.Conv2d(8, 6, 3), nn.Conv2d(5, 4, 3), 5),
        (nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(4, 8, 3, groups=4), 4),
        (nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(3, 3, 3, groups=3), 3),
        (nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(3, 6, 3, groups=3), 3),  # depthwise with two outputs per input
        (nn.BatchNorm2d(8), nn.BatchNorm2d(5), 5),
        (nn.PReLU(8), nn.PReLU(5), 5),
    ],
    ids=["conv", "grouped", "depthwise", "depthwise multiplier", "batchnorm", "prelu"],
)
def test_a_module_computes_what_the_narrower_one_computes(wide: nn.Module, narrow: nn.Module, channels: int) -> None:
    wide, narrow = nn.Sequential(copy.deepcopy(wide)).eval(), nn.Sequential(copy.deepcopy(narrow)).eval()
    images = torch.randn(2, channels, 5, 5)
    fitted = take_shape(wide, narrow.state_dict())
    assert fitted is wide
    torch.testing.assert_close(fitted(images), narrow(images), rtol=0, atol=0)
    assert repr(fitted) == repr(narrow)  # the stored channel counts


def test_norms_over_channels_and_linear_layers_take_the_shape() -> None:
    fitted = take_shape(
        nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6)), nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).state_dict()
    )
    assert fitted(torch.zeros(1, 4)).shape == (1, 3)
    assert repr(fitted) == repr(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)))


def test_weights_are_copies_and_frozen_parameters_stay_frozen() -> None:
    source, network = nn.Linear(3, 2), nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    take_shape(network, source.state_dict())
    assert network.weight.requires_grad
    assert not network.bias.requires_grad
    network.weight.data.zero_()
    assert source.weight.any()
