"""BatchNorm with statistics over the batches of all processes, for training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d with the mean and variance of all processes' batches, on any device; torch's needs a GPU.

    The mini-batch of Ioffe and Szegedy (ICML 2015, algorithm 1) is that of all processes; gradients flow through the
    sums. The variance is computed from the differences to the common mean, which avoids cancellation.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised (N, C, H, W) images."""
        if not self.training:
            normalised: Tensor = super().forward(images)
            return normalised
        values = images.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        total = _sum(torch.cat([values.sum((0, 2, 3)), count]))
        positions = total[-1].detach()
        mean = total[:-1] / positions
        centred = values - mean[None, :, None, None]
        squares = _sum((centred**2).sum((0, 2, 3)))
        variance = squares / positions
        self._update_running_statistics(mean.detach(), variance.detach() * positions / (positions - 1).clamp_min(1))
        scale = self.weight / (variance + self.eps).sqrt()
        shifted: Tensor = centred * scale[None, :, None, None] + self.bias[None, :, None, None]
        return shifted.to(images.dtype)

    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Sum(torch.autograd.Function):
    """Sum over all processes. Each input affects the losses of all processes, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


@contextlib.contextmanager
def synchronised(network: nn.Module) -> Iterator[None]:
    """Replace the network's BatchNorms inside the block by synchronised ones that share their tensors."""
    replaced = []
    for parent in [*network.modules()]:
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d and child.affine and child.track_running_stats:
                setattr(parent, name, _twin(child))
                replaced.append((parent, name, child))
    try:
        yield
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child)


def _twin(norm: nn.BatchNorm2d) -> nn.Module:
    twin_type = nn.SyncBatchNorm if norm.weight.is_cuda else SyncBatchNorm
    twin = twin_type(norm.num_features, norm.eps, norm.momentum)
    twin.weight, twin.bias = norm.weight, norm.bias
    twin.running_mean, twin.running_var = norm.running_mean, norm.running_var
    twin.num_batches_tracked = norm.num_batches_tracked
    return twin.train(norm.training)
