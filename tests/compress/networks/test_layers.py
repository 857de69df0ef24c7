"""Tests of layer shapes, execution order and multiplications, against counts by hand."""

from __future__ import annotations

import torch
from networks import Chain
from torch import Tensor, nn

from compress.networks.layers import LayerShape, count_macs, layer_shapes, macs_per_connection, run_layers

EXAMPLE = torch.zeros(1, 3, 16, 16)


class Shared(nn.Module):
    """One convolution that runs twice, defined after the head, which runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.conv = nn.Linear(3, 2), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(images)).mean((2, 3)))


def test_channel_counts_are_those_of_the_modules() -> None:
    assert layer_shapes(Chain()) == {
        "a": LayerShape(16, 3, 1), "b": LayerShape(24, 16, 1), "c": LayerShape(32, 24, 8), "d": LayerShape(24, 32, 1),
        "head": LayerShape(5, 24, 1),
    }  # fmt: skip


def test_layers_are_listed_in_execution_order_with_their_outputs() -> None:
    network = Shared().train()
    calls, logits = run_layers(network, EXAMPLE)
    assert [module for module, _ in calls] == [network.conv, network.conv, network.head]
    assert [tuple(output.shape) for _, output in calls] == [(1, 3, 16, 16), (1, 3, 16, 16), (1, 2)]
    torch.testing.assert_close(calls[-1][1], logits)
    assert not network.training
    assert not logits.requires_grad
    assert not network.conv._forward_hooks


def test_macs_are_those_of_the_formula() -> None:
    network = Chain().eval()
    per_connection, shapes = macs_per_connection(network, EXAMPLE), layer_shapes(network)
    expected = {
        "a": 256 * 9 * 3 * 16, "b": 256 * 9 * 16 * 24, "c": 256 * 9 * 24 // 8 * 32, "d": 256 * 32 * 24, "head": 24 * 5
    }  # fmt: skip
    assert {name: per_connection[name] * shapes[name].connections for name in shapes} == expected
    assert count_macs(network, EXAMPLE) == sum(expected.values())


def test_a_layer_that_runs_twice_counts_twice() -> None:
    assert macs_per_connection(Shared(), EXAMPLE) == {"conv": 2 * 9 * 256, "head": 1}
    assert count_macs(Shared(), EXAMPLE) == 2 * 9 * 256 * 9 + 6
