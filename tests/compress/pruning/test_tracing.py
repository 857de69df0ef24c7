"""Tests of traces of channels."""

from __future__ import annotations

import torch
from networks import Tangle
from torch import Tensor, nn

from compress.pruning.tracing import CLASSES, ChannelTrace

EXAMPLE = torch.zeros(1, 3, 8, 8)


def test_layers_are_listed_in_the_order_of_execution() -> None:
    trace = ChannelTrace(Tangle(), EXAMPLE)
    assert [*trace.created][:4] == ["stem", "pointwise", "squeeze", "excite"]  # a depthwise one makes no channels
    assert [*trace.sides][:4] == [("stem", "in"), ("stem", "out"), ("stem_norm", "out"), ("depthwise", "out")]
    assert trace.kept() == {"head": CLASSES}


def test_a_layer_that_runs_twice_has_the_same_channels_both_times() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.shared(self.shared(self.first(images))).mean((2, 3)))

    trace = ChannelTrace(Twice(), EXAMPLE)
    assert torch.equal(trace.roots(trace.sides["first", "out"]), trace.roots(trace.sides["shared", "out"]))


def test_nothing_stays_attached_to_the_network() -> None:
    network = Tangle()
    ChannelTrace(network, EXAMPLE)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
