"""One run in several processes, as torchrun starts them: who is first, and how they agree. Alone, all of it is free.

All processes go through the same steps and have their files in one folder that all machines share. The first alone
writes, measures and decides; training is done together.
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
PATIENCE = timedelta(days=2)  # while the first process measures; torchrun ends all when one dies
_on_its_own: ContextVar[bool] = ContextVar("_on_its_own", default=False)


def rank() -> int:
    """Return this process's number, from 0."""
    return _environment("RANK", 0) if ranks() > 1 else 0


def ranks() -> int:
    """Return how many processes there are; some clusters name a number of their own, without where to meet."""
    return _environment("WORLD_SIZE", 1) if "MASTER_ADDR" in os.environ else 1


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Join the other processes, if there are any, and take the GPU of this one's number."""
    if ranks() == 1:
        yield
        return
    import torch
    from torch import distributed
    from torch._C._distributed_c10d import PrefixStore  # where mypy finds it
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        torch.cuda.set_device(_environment("LOCAL_RANK", 0) % torch.cuda.device_count())
    store, *_ = next(rendezvous("env://"))
    store = PrefixStore(_name_of_start(store), store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank(), world_size=ranks())
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _name_of_start(store: Any) -> str:
    """Return a name that the processes of this start have in common, and those of no earlier one had.

    torchrun's store outlives a restart, and torch 2.14 looks up the others' addresses there, old ones, too, which can
    be those of processes that are gone. So each process asks with a word of its own, and the first one answers all.
    """
    mine = uuid.uuid4().hex
    if not is_first():
        store.set(f"asks-{rank()}", mine)
        answer: str = store.get(f"answer-{mine}").decode()
        store.set(f"heard-{answer}-{rank()}", "")
        return answer
    waiting = set(range(1, ranks()))
    while waiting:
        for other in [other for other in waiting if store.check([f"asks-{other}"])]:
            store.set(f"answer-{store.get(f'asks-{other}').decode()}", mine)
            if store.check([f"heard-{mine}-{other}"]):
                waiting.remove(other)
        time.sleep(POLL_S)
    return mine


def from_first(make: Callable[[], Value]) -> Value:
    """Return what `make` gives in the first process, where alone it is called; it must survive JSON.

    While it runs the first process is on its own: what it calls does not wait for the others.
    """
    if not _with_others():
        return make()
    from torch import distributed

    text = b""
    if is_first():
        token = _on_its_own.set(True)
        try:
            text = json.dumps(make()).encode()
        finally:
            _on_its_own.reset(token)
    size = _tensor(np.asarray([len(text)]))
    with _exchange():
        distributed.broadcast(size, 0)
    content = _tensor(np.frombuffer(text, np.uint8) if is_first() else np.zeros(int(size), np.uint8))
    with _exchange():
        distributed.broadcast(content, 0)
    value: Value = json.loads(bytes(content.numpy()))
    return value


def go_on_alone() -> None:
    """Wait for nobody any more: the other processes are done."""
    _on_its_own.set(True)


def wait() -> None:
    """Go on when all processes are here."""
    any_of(False)


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return bool(summed(np.asarray([int(flag)]))[0])


def summed(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return the sum of every process's array, all of one shape."""
    if not _with_others():
        return values
    from torch import distributed

    tensor = _tensor(values)
    with _exchange():
        distributed.all_reduce(tensor)
    total: npt.NDArray[Number] = tensor.numpy()
    return total


def distributed_network(network: nn.Module) -> nn.Module:
    """Return what to call in place of a network so that the gradients are the mean over all processes."""
    if not _with_others():
        return network
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(network)


def copy_from_first(tensors: Iterator[torch.Tensor]) -> None:
    """Give every process the first one's values, in place."""
    if not _with_others():
        return
    from torch import distributed

    for tensor in tensors:
        with _exchange():
            distributed.broadcast(tensor, 0)


def require_shared(path: os.PathLike[str]) -> None:
    """Raise InputError where a file that the first process wrote is not seen here."""
    if not os.path.exists(path):
        raise InputError(
            f"{path}: process {rank()} does not see it; choose a folder with --out that all machines share"
        )


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's own errors of this kind are all of it
        raise CompressError(f"process {rank()} lost another one, which tells its own reason ({error})") from error


def _with_others() -> bool:
    return ranks() > 1 and not _on_its_own.get()


def _tensor(values: npt.NDArray[np.generic]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.array(values))


def _environment(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))
