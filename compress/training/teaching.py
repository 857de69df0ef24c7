"""Training a network on labels and, where the settings name one, on a teacher's answers."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from compress.training.augmentation import variants, variants_per_image
from compress.training.batches import normalize
from compress.training.config import FitConfig, Teacher
from compress.training.context import Context
from compress.training.loop import fit
from compress.training.losses import Loss, cross_entropy, decoupled_distillation, distillation
from runtimes.errors import InputError

KEY_BYTES = 300  # of a hash, a tensor and their places in a table
MOST_REMEMBERED_BYTES = 2**30


def train(network: nn.Module, context: Context, config: FitConfig, before: nn.Module | None = None) -> nn.Module:
    """Return the trained network in eval mode, on the CPU. before: the network before the stage, if it is another."""
    loss = cross_entropy(config.label_smoothing)
    if config.teacher is None:
        return fit(network, context, config, loss).cpu()
    if config.teacher.network == "before":
        teacher = copy.deepcopy(before or network)
    else:
        teacher = context.teacher(config.teacher.network)
    teacher = teacher.to(context.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    if config.teacher.loss != "features":
        return fit(network, context, config, _taught(loss, config.teacher, _answers(teacher, context, config))).cpu()
    pair = Projected(network, teacher, config.teacher.layers, context)
    trained = fit(pair, context, config, pair.loss(_taught(loss, config.teacher, pair.answers)))
    assert isinstance(trained, Projected)
    return trained.student.cpu()


def _answers(teacher: nn.Module, context: Context, config: FitConfig) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def answers(images: Tensor) -> Tensor:
        logits: Tensor = teacher(images).float()
        return logits

    count = variants_per_image(config.augment)
    size = len(context.train) * count * (len(context.classes) * 4 + KEY_BYTES)
    few = config.augment.only_turns and config.resize_from is None and count <= config.epochs
    if not few or size > MOST_REMEMBERED_BYTES:
        return answers
    return _remembered(answers, context, config)


def _remembered(answers: Callable[[Tensor], Tensor], context: Context, config: FitConfig) -> Callable[[Tensor], Tensor]:
    """Return the same answers, all given beforehand, for images that augmentation shows in few variants.

    Beforehand, because a network's last bits depend on who else is in the batch, and a run that is resumed has to end
    with the same weights.
    """
    prepared = context.prepared("train")
    table: dict[bytes, Tensor] = {}
    for start in range(0, len(prepared), config.batch_size):
        some = prepared.pixels(np.arange(start, min(start + config.batch_size, len(prepared))))
        for turned in zip(*(variants(one, config.augment) for one in some), strict=True):
            pixels = torch.from_numpy(np.stack(turned)).permute(0, 3, 1, 2)
            images = normalize(pixels, context.preprocessing, context.device)
            table.update(zip(_keys(images), answers(images), strict=True))
        context.console.progress("ask the teacher", start + len(some), len(prepared))
    return lambda images: torch.stack([table[key] for key in _keys(images)])


def _keys(images: Tensor) -> Iterator[bytes]:
    for one in images.permute(0, 2, 3, 1).contiguous().cpu().numpy():
        yield hashlib.sha256(one).digest()


def _taught(loss: Loss, config: Teacher, answers: Callable[[Tensor], Tensor]) -> Loss:
    if config.loss == "decoupled":
        return decoupled_distillation(loss, answers, config.share, config.temperature, config.beta)
    return distillation(loss, answers, config.share, config.temperature)


class Projected(nn.Module):
    """A student with a learned 1x1 convolution from each chosen layer to the teacher's (Romero et al., 2015)."""

    def __init__(self, student: nn.Module, teacher: nn.Module, layers: dict[str, str], context: Context) -> None:
        """Find the layers and their channels; raises InputError for names that are not there."""
        super().__init__()
        self.student = student
        self._teacher = [teacher]  # in a list, so that it is no part of what is trained and stored
        self._given: dict[str, Tensor] = {}
        self._wanted: dict[str, Tensor] = {}
        for one, names, kept in ((student, layers.keys(), self._given), (teacher, layers.values(), self._wanted)):
            for name in names:
                _module(one, name).register_forward_hook(_keeper(kept, name))
        side = context.preprocessing.crop
        with torch.no_grad():
            example = torch.zeros(1, 3, side, side)
            student.cpu().eval()(example)
            self.answers(example.to(context.device))
        torch.manual_seed(context.seed)
        self._pairs = layers
        self.projections = nn.ModuleList(
            nn.Conv2d(self._given[one].shape[1], self._wanted[other].shape[1], 1) for one, other in layers.items()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the student's logits."""
        logits: Tensor = self.student(images)
        return logits

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """Return the teacher's logits."""
        logits: Tensor = self._teacher[0](images).float()
        return logits

    def loss(self, loss: Loss) -> Loss:
        """Return a loss that adds the mean squared distance of every pair, relative to the teacher's mean square."""

        def value(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
            total = loss(images, logits, labels)  # runs the teacher
            for (one, other), projection in zip(self._pairs.items(), self.projections, strict=True):
                wanted = _as_image(self._wanted[other]).float()
                given = projection(_as_image(self._given[one])).float()
                if given.shape[2:] != wanted.shape[2:]:
                    given = nn.functional.adaptive_avg_pool2d(given, (wanted.shape[2], wanted.shape[3]))
                total = total + ((given - wanted) ** 2).mean() / (wanted**2).mean().clamp_min(1e-12)
            return total

        return value


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def keep(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training or not output.requires_grad:  # the averaged network's answers are not the student's
            kept[name] = output

    return keep


def _module(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError:
        names = ", ".join(one for one, _ in network.named_children())
        raise InputError(f"teacher.layers: there is no module '{name}'; there are {names} and what they hold") from None


def _as_image(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 4 else tensor[:, :, None, None]
