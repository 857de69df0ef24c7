"""Tests of channels that can be removed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import shufflenet_v2_x0_5

from compress.pruning.channels import find_channels
from runtimes.errors import InputError

EXAMPLE = torch.zeros(1, 3, 32, 32)


class Reshaped(nn.Module):
    """Its code sets the number of the channels of `fixed`, and says so to no operator."""

    def __init__(self) -> None:
        """Initialise randomly."""
        super().__init__()
        self.free, self.fixed, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.fixed(self.free(images)).mean((2, 3)).view(-1, 6))
        return logits


def test_channels_whose_number_is_in_the_code_are_kept() -> None:
    channels = find_channels(Reshaped(), EXAMPLE)
    assert [group.name for group in channels.groups] == ["free"]
    assert channels.reasons().startswith("fixed because of the channels of this network were traced wrongly")


def test_the_branches_of_a_shufflenet_are_pruned_and_its_shuffled_channels_kept() -> None:
    channels = find_channels(shufflenet_v2_x0_5(num_classes=3).eval(), EXAMPLE)
    names = {group.name for group in channels.groups}
    assert "stage2.1.branch2.0" in names
    assert "stage2.1.branch2.5" not in names
    assert "view" in channels.kept["stage2.1.branch2.5"]
    assert "and " in channels.reasons()
    assert channels.reasons(most=1).endswith("; …")


def test_a_network_that_does_not_run_is_refused() -> None:
    with pytest.raises(InputError, match="prune: this network can't be traced: "):
        find_channels(nn.Sequential(nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(2, 2)), EXAMPLE)
