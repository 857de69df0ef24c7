"""BatchNorm over several processes, each simulated by a thread, against one BatchNorm over the whole batch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from compress.training import sync_batchnorm
from compress.training.sync_batchnorm import SyncBatchNorm, synchronised


class Group:
    """All-reduce between threads."""

    def __init__(self, ranks: int) -> None:
        self._ranks, self._barrier, self._lock = ranks, threading.Barrier(ranks, timeout=600), threading.Lock()
        self._values: list[torch.Tensor] = []

    def all_reduce(self, tensor: torch.Tensor) -> None:
        with self._lock:
            self._values.append(tensor.clone())
        self._barrier.wait()
        total = torch.stack(self._values).sum(0)
        self._barrier.wait()
        self._values = []
        self._barrier.wait()
        tensor.copy_(total)

    def run(self, work: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(self._ranks) as pool:
            list(pool.map(work, range(self._ranks)))


def synchronised_copy(norm: nn.BatchNorm2d) -> SyncBatchNorm:
    twin = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum)
    twin.load_state_dict(norm.state_dict())
    return twin


@pytest.mark.parametrize("sizes", [(3, 3), (4, 2), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_processes_together_compute_what_one_computes(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], momentum: float | None
) -> None:
    group = Group(len(sizes))
    monkeypatch.setattr(sync_batchnorm.distributed, "all_reduce", group.all_reduce)
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, momentum=momentum)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    twins = [synchronised_copy(norm) for _ in sizes]
    images = 100 + torch.randn(sum(sizes), 4, 5, 3)  # a large mean: the variance must not lose its digits
    factors = torch.randn_like(images)

    whole = images.clone().requires_grad_()
    expected = norm(whole)
    (expected * factors).sum().backward()
    parts = [part.clone().requires_grad_() for part in images.split(sizes)]
    outputs: dict[int, torch.Tensor] = {}

    def work(rank: int) -> None:
        outputs[rank] = twins[rank](parts[rank])
        (outputs[rank] * factors.split(sizes)[rank]).sum().backward()

    group.run(work)
    torch.testing.assert_close(torch.cat([outputs[rank] for rank in range(len(sizes))]), expected, atol=1e-4, rtol=1e-4)
    assert whole.grad is not None
    gradients = torch.cat([part.grad for part in parts if part.grad is not None])
    torch.testing.assert_close(gradients, whole.grad, atol=1e-4, rtol=1e-4)
    for name, parameter in norm.named_parameters():
        total = sum(twin.get_parameter(name).grad for twin in twins)  # type: ignore[misc]
        torch.testing.assert_close(total, parameter.grad, atol=1e-3, rtol=1e-4)
    for twin in twins:
        torch.testing.assert_close(dict(twin.named_buffers()), dict(norm.named_buffers()), atol=1e-4, rtol=1e-5)


def test_in_eval_mode_it_is_batchnorm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_batchnorm.distributed, "all_reduce", lambda tensor: pytest.fail("communicated"))
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    norm(torch.randn(8, 3, 4, 4))
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(synchronised_copy(norm).eval()(images), norm.eval()(images))


def test_inside_the_block_norms_are_replaced_by_ones_that_share_their_tensors() -> None:
    network = nn.Sequential(
        nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(3)), nn.BatchNorm2d(2, affine=False),
        nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(5, eps=1e-3, momentum=0.3).eval(),
    )  # fmt: skip
    before = [*network.modules()]
    state = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    with synchronised(network):
        kinds = [type(module) for module in network.modules()][2:]
        assert kinds == [SyncBatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm2d, SyncBatchNorm]
        assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == state
        twin = network[3]
        assert (twin.eps, twin.momentum, twin.training) == (1e-3, 0.3, False)
    assert [*network.modules()] == before


def test_norms_are_restored_after_an_error() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3))
    norm = network[0]
    with pytest.raises(KeyError), synchronised(network):
        raise KeyError
    assert network[0] is norm
    assert copy.deepcopy(network)[0].num_features == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_norms_are_replaced_by_those_of_torch() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3)).to("cuda")
    with synchronised(network):
        assert type(network[0]) is nn.SyncBatchNorm
    assert type(network[0]) is nn.BatchNorm2d
