"""Rank, broadcast and all-reduce for runs under torchrun; no-ops in a single process.

All processes run the same steps in one folder that all machines share. Training uses all of them; only rank 0 writes
files, measures and decides.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from runtimes.errors import CompressError, InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

Value = TypeVar("Value")
Number = TypeVar("Number", bound=np.generic)

POLL_S = 0.02
TIMEOUT = timedelta(days=2)  # the others wait while rank 0 measures; torchrun ends all processes when one dies
_detached: ContextVar[bool] = ContextVar("_detached", default=False)


def rank() -> int:
    """Return the number of this process, from 0."""
    return _environment("RANK", 0) if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes: WORLD_SIZE if MASTER_ADDR is set too, else 1.

    Some clusters set WORLD_SIZE for single processes; without MASTER_ADDR there is no address for a rendezvous.
    """
    return _environment("WORLD_SIZE", 1) if "MASTER_ADDR" in os.environ else 1


def is_first() -> bool:
    """Return whether this is rank 0, the process that writes files."""
    return rank() == 0


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the process group for the duration of the block and select the GPU of LOCAL_RANK."""
    if world_size() == 1:
        yield
        return
    import torch
    from torch import distributed
    from torch._C._distributed_c10d import PrefixStore  # the module in which mypy finds it
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        torch.cuda.set_device(_environment("LOCAL_RANK", 0) % torch.cuda.device_count())
    store, *_ = next(rendezvous("env://"))
    store = PrefixStore(_launch_name(store), store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT, store=store, rank=rank(), world_size=world_size())
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _launch_name(store: Any) -> str:
    """Return a name that all processes of this launch share and that no earlier launch used.

    torchrun's store outlives a restart, and torch 2.14 reads the addresses of the other ranks from it, including those
    of processes that have died. So each process writes a request with a random name, rank 0 answers every request with
    its own random name, and that name becomes the prefix of all keys.
    """
    own_name = uuid.uuid4().hex
    if not is_first():
        store.set(f"request-{rank()}", own_name)
        launch: str = store.get(f"answer-{own_name}").decode()
        store.set(f"received-{launch}-{rank()}", "")
        return launch
    waiting = set(range(1, world_size()))
    while waiting:
        for other in [other for other in waiting if store.check([f"request-{other}"])]:
            store.set(f"answer-{store.get(f'request-{other}').decode()}", own_name)
            if store.check([f"received-{own_name}-{other}"]):
                waiting.remove(other)
        time.sleep(POLL_S)
    return own_name


def from_first(make: Callable[[], Value]) -> Value:
    """Call `make` on rank 0 only and return its result, which must be JSON, on all ranks.

    While `make` runs, the functions of this module are no-ops on rank 0, so that `make` can call them without the other
    ranks.
    """
    if not _in_group():
        return make()
    from torch import distributed

    text = b""
    if is_first():
        token = _detached.set(True)
        try:
            text = json.dumps(make()).encode()
        finally:
            _detached.reset(token)
    size = _tensor(np.asarray([len(text)]))
    with _peer_errors():
        distributed.broadcast(size, 0)
    content = _tensor(np.frombuffer(text, np.uint8) if is_first() else np.zeros(int(size), np.uint8))
    with _peer_errors():
        distributed.broadcast(content, 0)
    value: Value = json.loads(bytes(content.numpy()))
    return value


def detach() -> None:
    """Make the functions of this module no-ops from now on, because the other processes have finished."""
    _detached.set(True)


def barrier() -> None:
    """Wait until all processes have reached this call."""
    any_of(False)


def any_of(flag: bool) -> bool:
    """Return whether the flag is set in any process."""
    return bool(all_reduce_sum(np.asarray([int(flag)]))[0])


def all_reduce_sum(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return the sum of the arrays of all processes; they have one shape and dtype."""
    if not _in_group():
        return values
    from torch import distributed

    tensor = _tensor(values)
    with _peer_errors():
        distributed.all_reduce(tensor)
    total: npt.NDArray[Number] = tensor.numpy()
    return total


def data_parallel(network: nn.Module) -> nn.Module:
    """Return the network wrapped so that its gradients are the mean over all processes."""
    if not _in_group():
        return network
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(network)


def broadcast(tensors: Iterator[torch.Tensor]) -> None:
    """Copy the values of rank 0 to all processes, in place."""
    if not _in_group():
        return
    from torch import distributed

    for tensor in tensors:
        with _peer_errors():
            distributed.broadcast(tensor, 0)


def require_shared(path: os.PathLike[str]) -> None:
    """Raise InputError if a file that rank 0 wrote is not visible to this process."""
    if not os.path.exists(path):
        raise InputError(f"{path}: not visible to process {rank()}; choose a folder with --out that all machines share")


@contextlib.contextmanager
def _peer_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # the base class of all errors of torch.distributed
        raise CompressError(f"process {rank()} lost contact with another process; see its log ({error})") from error


def _in_group() -> bool:
    return world_size() > 1 and not _detached.get()


def _tensor(values: npt.NDArray[np.generic]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.array(values))


def _environment(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))
