"""Tests of the rules for labels: what PyTorch computes from channels of zeros decides what is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import make_lively
from torch import Tensor, nn

from compress.pruning.channels import find_channels

EXAMPLE = torch.zeros(1, 3, 8, 8)
FREE: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: nn.functional.hardswish(x),
    lambda x: nn.functional.gelu(x * 2).clamp(-1, 1),
    lambda x: nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
    lambda x: nn.functional.max_pool2d(nn.functional.pad(x, (1, 1, 1, 1)), 3),
    lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    lambda x: x * x.flatten(2).softmax(-1).reshape(x.shape),
    lambda x: x * x.sum(1, keepdim=True).sigmoid(),
    lambda x: x[:, :, ::2, 1:],
    lambda x: torch.cat([x, x.relu()], 3),
    lambda x: x + torch.zeros_like(x),
    lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x),
    lambda x: x[:, :99],
)
KEEPING: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x * x.mean(1, keepdim=True),
    "softmax": lambda x: x.softmax(1),
    "slice": lambda x: torch.cat([x[:, 4:], x[:, :4]], 1),
    "split": lambda x: torch.cat(list(x.chunk(2, 1))[::-1], 1),
    "view": lambda x: x.reshape(-1, 2, 4, 8, 8).transpose(1, 2).flatten(1, 2),
    "mul": lambda x: x * torch.ones(8, 1, 1),
    "bmm": lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2) @ x.flatten(2)).reshape(x.shape),
    "index": lambda x: x[:, torch.arange(7, -1, -1)],
    "flip": lambda x: x.flip(1),
    "constant_pad_nd": lambda x: nn.functional.pad(x, (0, 0, 0, 0, 0, 1))[:, :8],
}


class Between(nn.Module):
    """A convolution, a function of its outputs, and a classifier."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        """Initialise randomly."""
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.LazyConv2d(6, 1)
        self.head, self.function = nn.Linear(6, 3), function

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        x = self.function(self.norm(self.first(images)))
        logits: Tensor = self.head(self.second(x).mean((2, 3)))
        return logits


def channels_of(function: Callable[[Tensor], Tensor]) -> tuple[set[str], dict[str, str]]:
    network = Between(function)
    network.eval()(EXAMPLE)
    found = find_channels(make_lively(network), EXAMPLE)
    return {group.name for group in found.groups}, found.kept


@pytest.mark.parametrize("function", FREE)
def test_channels_are_followed_through_operators_that_treat_them_alike(function: Callable[[Tensor], Tensor]) -> None:
    groups, kept = channels_of(function)
    assert groups == {"first", "second"}
    assert kept.keys() == {"head"}


@pytest.mark.parametrize("name", KEEPING)
def test_channels_are_kept_with_the_operator_that_needs_their_number(name: str) -> None:
    groups, kept = channels_of(KEEPING[name])
    assert groups == {"second"}
    assert name in kept["first"]
