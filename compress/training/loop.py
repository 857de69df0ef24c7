"""Training loop with checkpoints, used by every stage that trains."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress.networks import checkpoint
from compress.process import distributed
from compress.process.signals import TerminatedError, sigterm_flag
from compress.training.augmentation import mixing
from compress.training.batches import TrainingBatches, normalize
from compress.training.config import FitConfig
from compress.training.context import Context
from compress.training.losses import Loss
from compress.training.optimization import frozen, like_parameters, make_optimizer, make_schedule
from compress.training.sync_batchnorm import synchronised
from runtimes.errors import CompressError, InputError
from runtimes.evalset import EvalSet
from runtimes.files import write_json
from runtimes.metrics import Accuracy, accuracy

STATE_FILE, STATE_BEFORE = "training-state.safetensors", "training-state-before.safetensors"
VALIDATION_BATCH = 64


@dataclass
class _Run:
    """State of a training run. epoch: number of finished epochs. step, total: steps and loss of the current epoch."""

    network: nn.Module
    average: AveragedModel | None
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    total: torch.Tensor  # sum of the losses
    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def result(self) -> nn.Module:
        """Return the averaged network if there is one, else the trained network."""
        return self.average.module if self.average else self.network


def fit(network: nn.Module, context: Context, config: FitConfig, loss: Loss) -> nn.Module:
    """Train and return the network in eval mode; continue from the checkpoint in the stage's folder, if there is one.

    Writes history.json (per epoch: losses, learning rate, validation metrics) into the folder, and a checkpoint after
    each epoch, every `checkpoint_minutes` and on SIGTERM. Raises CompressError if the loss or the weights are no longer
    finite, TerminatedError on SIGTERM.
    """
    network = network.to(context.device).to(memory_format=torch.channels_last)
    with ExitStack() as stack:
        batches = stack.enter_context(TrainingBatches(context, config, distributed.rank(), distributed.world_size()))
        terminated = stack.enter_context(sigterm_flag())
        frozen_modules = stack.enter_context(frozen(network, config.freeze))
        _require_statistics(network, frozen_modules, batches.size, config)
        run = _begin(network, context, config, batches.steps)
        if config.sync_batchnorm and distributed.world_size() > 1:
            stack.enter_context(
                synchronised(run.network)
            )  # the averaged network is not trained and keeps its BatchNorms
        step = _Step(run, context, config, loss, batches.size, frozen_modules)
        validation = context.prepared("val")
        while run.epoch < config.epochs:
            _train_epoch(run, context, config, step, batches, terminated)
            logits = _validation_logits(run.result, validation, context.device)
            if not np.isfinite(logits).all():
                raise _diverged("validation logits", float("nan"), run.epoch, config)
            assert validation.labels is not None
            _record(run, context, config, accuracy(logits, validation.labels), batches.steps)
            _save_state(run, context.folder)
            _exit_if(distributed.any_of(terminated()), f"epoch {run.epoch}/{config.epochs} of {context.name}")
    return run.result.eval()


def _require_statistics(
    network: nn.Module, frozen_modules: list[nn.Module], batch_size: int, config: FitConfig
) -> None:
    """Raise InputError if a BatchNorm would be trained on single images. batch_size: over all processes."""
    processes = distributed.world_size()
    if (batch_size if config.sync_batchnorm else batch_size // processes) > 1:
        return
    not_trained = {module for parent in frozen_modules for module in parent.modules()}
    if not any(isinstance(module, _BatchNorm) and module not in not_trained for module in network.modules()):
        return
    if processes == 1:
        raise InputError("there is one training image, and BatchNorm needs two to compute statistics; add images")
    raise InputError(
        f"a batch of {batch_size} images leaves one image for some of {processes} processes, and BatchNorm needs two; "
        "start fewer processes, or set sync_batchnorm: true"
    )


def _begin(network: nn.Module, context: Context, config: FitConfig, steps: int) -> _Run:
    """Return the state at the start of training, or that of the folder's checkpoint."""
    optimizer = make_optimizer(network, config)
    average = None
    if config.ema_decay is not None:
        ema = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
        average = AveragedModel(network, multi_avg_fn=ema, use_buffers=True)
    scaler = torch.amp.GradScaler(context.device, enabled=_arithmetic(context, config) == torch.float16)
    total = torch.zeros((), device=context.device)
    run = _Run(network, average, optimizer, make_schedule(optimizer, config, steps), scaler, total)
    if _load_state(run, context):
        position = f"epoch {run.epoch}" if not run.step else f"step {run.step} of {steps} in epoch {run.epoch + 1}"
        context.console.say(f"resumed after {position} of {config.epochs}")
    return run


def _arithmetic(context: Context, config: FitConfig) -> torch.dtype:
    """Return the dtype in which layers compute; weights are float32."""
    if config.precision == "auto":
        return torch.bfloat16 if context.device == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[config.precision]


def predict(network: nn.Module, images: EvalSet, device: str) -> npt.NDArray[np.float32]:
    """Return the float32 logits (N, classes) of a network, which is set to eval mode."""
    network.eval()
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(batch).to(device, memory_format=torch.channels_last)).float().cpu().numpy()
            for batch in images.batches(VALIDATION_BATCH)
        ]
    return np.concatenate(parts)


def _validation_logits(network: nn.Module, images: EvalSet, device: str) -> npt.NDArray[np.float32]:
    """Return the same as `predict`; each process runs its share of the images, with the buffers of rank 0."""
    if distributed.world_size() == 1:
        return predict(network, images, device)
    distributed.broadcast(network.buffers())
    own_indices = np.array_split(np.arange(len(images)), distributed.world_size())[distributed.rank()]
    part = predict(network, images.take(own_indices), device) if len(own_indices) else np.zeros((0, 1), np.float32)
    classes = int(distributed.all_reduce_sum(np.asarray([part.shape[1] if distributed.is_first() else 0]))[0])
    logits = np.zeros((len(images), classes), np.float32)
    logits[own_indices] = part
    every: npt.NDArray[np.float32] = distributed.all_reduce_sum(logits)
    return every


def _train_epoch(
    run: _Run,
    context: Context,
    config: FitConfig,
    train_step: _Step,
    batches: TrainingBatches,
    terminated: Callable[[], bool],
) -> None:
    """Train to the end of the current epoch. All random numbers depend only on the seed, the epoch and the step."""
    train_step.prepare()
    what = f"{context.name}, epoch {run.epoch + 1}/{config.epochs}"
    done, all_steps = run.epoch * batches.steps, config.epochs * batches.steps
    saved = time.monotonic()
    sides = config.sides(run.epoch, (context.preprocessing.height, context.preprocessing.width))
    for pixels, labels in batches.epoch(run.epoch, run.step, sides):
        torch.manual_seed(context.seed * 1_000_003 + done + run.step)  # for dropout
        train_step(pixels, labels)
        run.step += 1
        context.console.progress(what, done + run.step, all_steps)
        if distributed.any_of(terminated() or time.monotonic() - saved > 60 * config.checkpoint_minutes):
            _require_finite(run, config)
            _save_state(run, context.folder)
            saved = time.monotonic()
            _exit_if(distributed.any_of(terminated()), f"step {run.step} of {what}")
    _require_finite(run, config)
    run.epoch += 1
    run.step = 0


def _exit_if(terminated: bool, position: str) -> None:
    if terminated:
        raise TerminatedError(f"terminated; run the same command again to resume after {position}")


class _Step:
    """One optimizer step with gradient accumulation and all-reduce."""

    def __init__(
        self,
        run: _Run,
        context: Context,
        config: FitConfig,
        loss: Loss,
        batch_size: int,
        frozen_modules: list[nn.Module],
    ) -> None:
        """Prepare the network for several processes. batch_size: over all processes."""
        self._run, self._context, self._config, self._loss = run, context, config, loss
        self._frozen_modules, self._batch_size = frozen_modules, batch_size
        self._arithmetic = _arithmetic(context, config)
        self._mix = mixing(config.augment, len(context.classes))
        self._network = distributed.data_parallel(run.network)
        smallest = batch_size // distributed.world_size()
        self._parts = max(1, min(config.accumulate, smallest // 2))  # BatchNorm needs two images in each part

    def prepare(self) -> None:
        """Set the network to train mode, except its frozen modules."""
        self._run.network.train()
        for module in self._frozen_modules:
            module.eval()

    def __call__(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        """Update the weights with this process's uint8 (n, C, H, W) images and int64 (n,) labels."""
        run, config = self._run, self._config
        run.optimizer.zero_grad(set_to_none=True)
        parts = list(zip(pixels.tensor_split(self._parts), labels.tensor_split(self._parts), strict=True))
        for number, part in enumerate(parts, 1):
            with nullcontext() if number == len(parts) else self._without_all_reduce():
                self._add_gradient(*part)
        if config.clip_norm is not None:
            run.scaler.unscale_(run.optimizer)
            nn.utils.clip_grad_norm_(run.network.parameters(), config.clip_norm)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.schedule.step()
        if run.average:
            run.average.update_parameters(run.network)

    def _add_gradient(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        images = normalize(pixels, self._context.preprocessing, self._context.device)
        labels = labels.to(self._context.device, non_blocking=True)
        if self._mix:
            images, labels = self._mix(images, labels)
        with torch.autocast(self._context.device, self._arithmetic, enabled=self._arithmetic != torch.float32):
            logits = self._network(images)
        # The gradient is the mean over processes, which may have batches of different sizes.
        share = len(pixels) * distributed.world_size() / self._batch_size
        value = self._loss(images, logits, labels) * share
        self._run.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        self._run.total += value.detach()

    def _without_all_reduce(self) -> AbstractContextManager[None]:
        network = self._network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def _mean_total(run: _Run) -> float:
    """Return the sum of the losses of the current epoch, mean over all processes."""
    return float(distributed.all_reduce_sum(np.asarray([float(run.total)]))[0]) / distributed.world_size()


def _require_finite(run: _Run, config: FitConfig) -> None:
    """Raise CompressError if the loss or the weights are not finite, in all processes (their weights are equal)."""
    total = _mean_total(run)
    if not math.isfinite(total):
        raise _diverged("training loss", total, run.epoch + 1, config)
    if not all(bool(value.isfinite().all()) for value in run.network.state_dict().values()):
        raise _diverged("weights", math.nan, run.epoch + 1, config)


def _diverged(quantity: str, value: float, epoch: int, config: FitConfig) -> CompressError:
    return CompressError(f"the {quantity} became {value} in epoch {epoch}; try a lower lr than {config.lr:g}")


def _record(run: _Run, context: Context, config: FitConfig, metrics: Accuracy, steps: int) -> None:
    lr, train_loss = float(max(run.schedule.get_last_lr())), _mean_total(run) / steps
    run.total.zero_()
    run.history.append({"epoch": run.epoch, "lr": lr, "train_loss": train_loss, "val": asdict(metrics)})
    if distributed.is_first():
        write_json(context.folder / "history.json", run.history)
    context.track(run.epoch, {"lr": lr, "train_loss": train_loss, "val_loss": metrics.loss, "val_top1": metrics.top1})
    context.console.say(
        f"epoch {run.epoch}/{config.epochs}: loss {train_loss:.4f}, val loss {metrics.loss:.4f}, "
        f"val top-1 {100 * metrics.top1:.2f} %"
    )


def _save_state(run: _Run, folder: Path) -> None:
    """Write a checkpoint on rank 0 and keep the one before."""
    total = _mean_total(run)
    if not distributed.is_first():
        return
    tensors = {f"network.{name}": value for name, value in run.network.state_dict().items()}
    if run.average:
        tensors |= {f"average.{name}": value for name, value in run.average.state_dict().items()}
    optimizer = run.optimizer.state_dict()
    for index, values in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
    other_state = {
        "epoch": run.epoch,
        "step": run.step,
        "total": total,
        "history": run.history,
        "param_groups": optimizer["param_groups"],
        "schedule": run.schedule.state_dict(),
        "scaler": run.scaler.state_dict(),
    }
    if (folder / STATE_FILE).exists():
        (folder / STATE_FILE).replace(folder / STATE_BEFORE)
    checkpoint.save_tensors(folder / STATE_FILE, tensors, {"state": json.dumps(other_state)})


def _load_state(run: _Run, context: Context) -> bool:
    """Load the newest readable checkpoint into the run; return whether there is one."""
    files = [path for path in (context.folder / STATE_FILE, context.folder / STATE_BEFORE) if path.exists()]
    if not files:
        return False
    try:
        tensors, metadata = checkpoint.load_tensors(files[0])
    except InputError as error:
        if len(files) == 1:
            raise
        context.console.say(f"{error}; loading the checkpoint before it")
        tensors, metadata = checkpoint.load_tensors(files[1])
    other_state = json.loads(metadata["state"])
    run.network.load_state_dict(_with_prefix(tensors, "network."))
    if run.average:
        run.average.load_state_dict(_with_prefix(tensors, "average."))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _with_prefix(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    state = like_parameters(run.optimizer, state)
    run.optimizer.load_state_dict({"state": state, "param_groups": other_state["param_groups"]})
    run.schedule.load_state_dict(other_state["schedule"])
    run.scaler.load_state_dict(other_state["scaler"])
    run.epoch, run.step, run.history = other_state["epoch"], other_state["step"], other_state["history"]
    run.total.fill_(other_state["total"])
    return True


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
