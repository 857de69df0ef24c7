"""The only training loop: train, distil, fine-tune and QAT differ in the network and the loss that they bring."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress import checkpoint
from compress.context import Context
from compress.losses import Loss
from compress.training.batches import batches_per_epoch, normalize, train_batches
from compress.training.config import FitConfig
from compress.training.optimization import like_parameters, make_optimizer, make_schedule
from runtimes.errors import CompressError
from runtimes.evalset import EvalSet
from runtimes.files import write_json
from runtimes.metrics import Accuracy, accuracy

STATE_FILE = "training-state.safetensors"
VALIDATION_BATCH = 64


@dataclass
class _Run:
    """Everything that changes while training goes on."""

    network: nn.Module
    average: AveragedModel | None
    optimizer: Optimizer
    schedule: LRScheduler
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def result(self) -> nn.Module:
        """Return the network that the stage returns: the averaged one if there is one."""
        return self.average.module if self.average else self.network


def fit(network: nn.Module, context: Context, config: FitConfig, loss: Loss) -> nn.Module:
    """Train and return the network in eval mode; continues after the last whole epoch that the folder holds.

    Writes history.json (per epoch: losses, learning rate, validation metrics) into the stage's folder.
    Raises CompressError when the loss stops being finite.
    """
    network = network.to(context.device).to(memory_format=torch.channels_last)
    steps = batches_per_epoch(len(context.train), config)
    optimizer = make_optimizer(network, config)
    average = None
    if config.ema_decay is not None:
        ema = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
        average = AveragedModel(network, multi_avg_fn=ema, use_buffers=True)
    run = _Run(network, average, optimizer, make_schedule(optimizer, config, steps))
    state_file = context.folder / STATE_FILE
    if state_file.exists():
        _load_state(run, state_file)
        context.say(f"resumed after epoch {run.epoch} of {config.epochs}")
    validation = context.prepared("val")
    while run.epoch < config.epochs:
        run.epoch += 1
        train_loss = _train_epoch(run, context, config, loss, steps)
        logits = predict(run.result, validation, context.device)
        if not np.isfinite(logits).all():
            raise _diverged("validation logits", float("nan"), run.epoch, config)
        assert validation.labels is not None
        metrics = accuracy(logits, validation.labels)
        _record(run, context, config, train_loss, metrics)
        _save_state(run, state_file)
    return run.result.eval()


def predict(network: nn.Module, images: EvalSet, device: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the `(N, classes)` float32 logits of a network in eval mode."""
    network.eval()
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(batch).to(device, memory_format=torch.channels_last)).float().cpu().numpy()
            for batch in images.batches(VALIDATION_BATCH)
        ]
    return np.concatenate(parts)


def _train_epoch(run: _Run, context: Context, config: FitConfig, loss: Loss, steps: int) -> float:
    """Run one epoch; everything random in it depends on the seed and the epoch alone. Returns the mean loss."""
    torch.manual_seed(context.seed * 1_000_003 + run.epoch)
    run.network.train()
    half = config.precision == "auto" and context.device == "cuda"
    total = torch.zeros((), device=context.device)
    for step, (pixels, labels) in enumerate(train_batches(context, config, run.epoch), 1):
        images = normalize(pixels, context.preprocessing, context.device)
        with torch.autocast(context.device, torch.bfloat16, enabled=half):
            logits = run.network(images)
        value = loss(images, logits, labels.to(context.device))
        run.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        run.schedule.step()
        if run.average:
            run.average.update_parameters(run.network)
        total += value.detach()
        what = f"{context.name}, epoch {run.epoch}/{config.epochs}"
        context.progress(what, (run.epoch - 1) * steps + step, config.epochs * steps)
    mean = float(total) / steps
    if not math.isfinite(mean):
        raise _diverged("training loss", mean, run.epoch, config)
    return mean


def _diverged(what: str, value: float, epoch: int, config: FitConfig) -> CompressError:
    return CompressError(f"the {what} became {value} in epoch {epoch}; try a lower lr than {config.lr:g}")


def _record(run: _Run, context: Context, config: FitConfig, train_loss: float, metrics: Accuracy) -> None:
    lr = run.schedule.get_last_lr()[0]
    run.history.append({"epoch": run.epoch, "lr": lr, "train_loss": train_loss, "val": asdict(metrics)})
    write_json(context.folder / "history.json", run.history)
    context.say(
        f"epoch {run.epoch}/{config.epochs}: loss {train_loss:.4f}, val loss {metrics.loss:.4f}, "
        f"val top-1 {100 * metrics.top1:.2f} %"
    )


def _save_state(run: _Run, path: Path) -> None:
    tensors = {f"network.{name}": value for name, value in run.network.state_dict().items()}
    if run.average:
        tensors |= {f"average.{name}": value for name, value in run.average.state_dict().items()}
    optimizer = run.optimizer.state_dict()
    for index, values in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
    rest = {
        "epoch": run.epoch,
        "history": run.history,
        "param_groups": optimizer["param_groups"],
        "schedule": run.schedule.state_dict(),
    }
    checkpoint.save_tensors(path, tensors, {"state": json.dumps(rest)})


def _load_state(run: _Run, path: Path) -> None:
    tensors, metadata = checkpoint.load_tensors(path)
    rest = json.loads(metadata["state"])
    run.network.load_state_dict(_with_prefix(tensors, "network."))
    if run.average:
        run.average.load_state_dict(_with_prefix(tensors, "average."))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _with_prefix(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    state = like_parameters(run.optimizer, state)
    run.optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})
    run.schedule.load_state_dict(rest["schedule"])
    run.epoch, run.history = rest["epoch"], rest["history"]


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
