"""Small PyTorch networks with all kinds of connections between channels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tangle(nn.Module):
    """A residual addition, a depthwise and a grouped convolution, squeeze-excite, a concat, a flatten; for 8 px."""

    def __init__(self, classes: int = 5) -> None:
        """Initialise randomly."""
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.depthwise_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.pointwise, self.pointwise_norm = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.grouped, self.grouped_norm = nn.Conv2d(16, 24, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(24)
        self.left, self.right = nn.Conv2d(24, 8, 1), nn.Conv2d(24, 12, 1)
        self.last = nn.Conv2d(20, 12, 1)
        self.hidden, self.head = nn.Linear(12 * 16, 32), nn.Linear(32, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        x = self.stem_norm(self.stem(images)).relu()
        y = self.depthwise_norm(self.depthwise(x)).relu()
        y = self.pointwise_norm(self.pointwise(y))
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = (x + y).relu()
        x = nn.functional.max_pool2d(self.grouped_norm(self.grouped(x)).relu(), 2)
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], dim=1)
        x = self.last(x).relu()
        logits: Tensor = self.head(self.hidden(x.flatten(1)).relu())
        return logits


class Chain(nn.Module):
    """Four convolutions in sequence, the third one grouped, with 16, 24, 32 and 24 channels by default."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        """Initialise randomly."""
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 2 * width, 3, padding=1), nn.Conv2d(2 * width, 3 * width, 3, padding=1)
        self.c, self.d = nn.Conv2d(3 * width, 4 * width, 3, padding=1, groups=8), nn.Conv2d(4 * width, 3 * width, 1)
        self.head = nn.Linear(3 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        x = self.b(self.a(images).relu()).relu()
        logits: Tensor = self.head(self.d(self.c(x).relu()).relu().mean((2, 3)))
        return logits


class Branches(nn.Module):
    """A 3x3 and a 1x1 convolution and the identity, fused by replacement. scale: of the 1x1 one when it is fused."""

    def __init__(self, channels: int = 32, scale: float = 1.0) -> None:
        """Initialise randomly."""
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        total: Tensor = self.wide(x) + self.narrow(x) + x
        return total

    def fuse(self) -> nn.Conv2d:
        """Return one convolution."""
        fused = copy.deepcopy(self.wide)
        identity = torch.eye(len(fused.weight))[:, :, None, None]
        fused.weight += functional.pad(self.scale * self.narrow.weight + identity, (1, 1, 1, 1))
        fused.bias += self.scale * self.narrow.bias
        return fused


def branched(classes: int, block: nn.Module | None = None) -> nn.Sequential:
    """Return a small network around a block of 32 channels, by default one with branches."""
    torch.manual_seed(0)
    block = Branches() if block is None else block
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))
    return nn.Sequential(nn.Conv2d(3, 32, 3), block, nn.ReLU(), head)


def make_lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give BatchNorms random statistics and factors, in eval mode, so that all channels differ; return the network."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.num_features
            module.weight.data = 0.5 + torch.rand(size, generator=generator)
            module.bias.data = 0.2 * torch.randn(size, generator=generator)
            module.running_mean = 0.1 * torch.randn(size, generator=generator)
            module.running_var = 0.5 + torch.rand(size, generator=generator)
    return network.eval()
