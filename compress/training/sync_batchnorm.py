"""BatchNorm over the batches of all processes, while a network is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn


class SyncBatchNorm(nn.BatchNorm2d):
    """Means and variances of the whole batch, on any device; torch's own needs a GPU.

    What Ioffe and Szegedy (ICML 2015, algorithm 1) call the mini-batch is that of all processes; its gradient goes
    through the sums. The variance is of the distances to the common mean, which loses no digits.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised (N, C, H, W) images."""
        if not self.training:
            normalised: Tensor = super().forward(images)
            return normalised
        values = images.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        total = _sum(torch.cat([values.sum((0, 2, 3)), count]))
        places = total[-1].detach()
        mean = total[:-1] / places
        centred = values - mean[None, :, None, None]
        squares = _sum((centred**2).sum((0, 2, 3)))
        variance = squares / places
        self._remember(mean.detach(), variance.detach() * places / (places - 1).clamp_min(1))
        scale = self.weight / (variance + self.eps).sqrt()
        shifted: Tensor = centred * scale[None, :, None, None] + self.bias[None, :, None, None]
        return shifted.to(images.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Sum(torch.autograd.Function):
    """The sum over all processes; each process's share moves the losses of all, so gradients are summed, too."""

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
    """Replace the network's BatchNorms in the block; the others share their tensors, so that these learn, too."""
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
    kind = nn.SyncBatchNorm if norm.weight.is_cuda else SyncBatchNorm
    twin = kind(norm.num_features, norm.eps, norm.momentum)
    twin.weight, twin.bias = norm.weight, norm.bias
    twin.running_mean, twin.running_var = norm.running_mean, norm.running_var
    twin.num_batches_tracked = norm.num_batches_tracked
    return twin.train(norm.training)
