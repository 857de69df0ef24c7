"""Train a network on labels and, if the settings name a teacher, on its outputs (knowledge distillation)."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from compress.training.augmentation import variants
from compress.training.batches import normalize
from compress.training.config import FitConfig, Teacher
from compress.training.context import Context
from compress.training.loop import fit
from compress.training.losses import Loss, cross_entropy, decoupled_distillation, distillation
from compress.training.optimization import recipe_modules, unknown_name

KEY_BYTES = 300  # memory of an entry of the table besides its logits: a digest, a tensor and a slot
MAX_TABLE_BYTES = 2**30


def train(network: nn.Module, context: Context, config: FitConfig, before: nn.Module | None = None) -> nn.Module:
    """Return the trained network in eval mode, on the CPU.

    before: the network for `teacher.network: before`, if it is not a copy of `network`.
    """
    counts = _class_counts(context) if config.balance_classes else None
    loss = cross_entropy(config.label_smoothing, counts)
    if config.teacher is None:
        return fit(network, context, config, loss).cpu()
    if config.teacher.network == "before":
        teacher = copy.deepcopy(before or network)
    else:
        teacher = context.teacher(config.teacher.network)
    teacher = teacher.to(context.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    if config.teacher.loss != "features":
        teacher_logits = _teacher_logits(teacher, context, config)
        return fit(network, context, config, _with_teacher(loss, config.teacher, teacher_logits, counts)).cpu()
    pair = Projected(network, teacher, config.teacher.layers, context)
    trained = fit(pair, context, config, pair.loss(_with_teacher(loss, config.teacher, pair.teacher_logits, counts)))
    assert isinstance(trained, Projected)
    return trained.student.cpu()


def _class_counts(context: Context) -> list[int]:
    counts = Counter(sample.label for sample in context.train)
    return [counts[label] for label in range(len(context.classes))]


def _teacher_logits(teacher: nn.Module, context: Context, config: FitConfig) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the teacher's logits; a table if augmentation makes few variants of an image."""

    @torch.no_grad()
    def run_teacher(images: Tensor) -> Tensor:
        logits: Tensor = teacher(images).float()
        return logits

    table_bytes = len(context.train) * config.augment.flip_variants * (len(context.classes) * 4 + KEY_BYTES)
    if not config.tabulates_teacher or table_bytes > MAX_TABLE_BYTES:
        return run_teacher
    return _tabulated(run_teacher, context, config)


def _tabulated(
    run_teacher: Callable[[Tensor], Tensor], context: Context, config: FitConfig
) -> Callable[[Tensor], Tensor]:
    """Return the same function as a lookup in a table of all variants of all training images.

    The table is computed before training, because the last bits of a network's outputs depend on the other images of
    the batch, and a resumed run must end with the same weights as one without interruption.
    """
    prepared = context.prepared("train")
    table: dict[bytes, Tensor] = {}
    for start in range(0, len(prepared), config.batch_size):
        originals = prepared.pixels(np.arange(start, min(start + config.batch_size, len(prepared))))
        for variant in zip(*(variants(pixels, config.augment) for pixels in originals), strict=True):
            pixels = torch.from_numpy(np.stack(variant)).permute(0, 3, 1, 2)
            images = normalize(pixels, context.preprocessing, context.device)
            table.update(zip(_digests(images), run_teacher(images), strict=True))
        context.console.progress("run the teacher", start + len(originals), len(prepared))
    return lambda images: torch.stack([table[digest] for digest in _digests(images)])


def _digests(images: Tensor) -> Iterator[bytes]:
    for pixels in images.permute(0, 2, 3, 1).contiguous().cpu().numpy():
        yield hashlib.sha256(pixels).digest()


def _with_teacher(
    loss: Loss, config: Teacher, teacher_logits: Callable[[Tensor], Tensor], counts: Sequence[int] | None
) -> Loss:
    if config.loss == "decoupled":
        return decoupled_distillation(loss, teacher_logits, config.share, config.temperature, config.beta, counts)
    return distillation(loss, teacher_logits, config.share, config.temperature, counts)


class Projected(nn.Module):
    """A student with a trained 1x1 convolution from each chosen layer to the teacher's (Romero et al., 2015)."""

    def __init__(self, student: nn.Module, teacher: nn.Module, layers: dict[str, str], context: Context) -> None:
        """Find the layers and their numbers of channels; raises InputError for unknown names."""
        super().__init__()
        self.student = student
        self._teacher = [teacher]  # in a list, so that it is not registered as a submodule to train and save
        self._student_outputs: dict[str, Tensor] = {}
        self._teacher_outputs: dict[str, Tensor] = {}
        for network, names, outputs in (
            (student, layers.keys(), self._student_outputs),
            (teacher, layers.values(), self._teacher_outputs),
        ):
            for name in names:
                _module(network, name).register_forward_hook(_recorder(outputs, name))
        with torch.no_grad():
            example = torch.zeros(1, *context.preprocessing.input_shape)
            student.cpu().eval()(example)
            self.teacher_logits(example.to(context.device))
        torch.manual_seed(context.seed)
        self._pairs = layers
        self.projections = nn.ModuleList(
            nn.Conv2d(self._student_outputs[own].shape[1], self._teacher_outputs[other].shape[1], 1)
            for own, other in layers.items()
        )

    def recipe_modules(self) -> dict[str, nn.Module]:
        """Return the student's modules: the projections are not part of the recipe's network."""
        return recipe_modules(self.student)

    def forward(self, images: Tensor) -> Tensor:
        """Return the student's logits."""
        logits: Tensor = self.student(images)
        return logits

    @torch.no_grad()
    def teacher_logits(self, images: Tensor) -> Tensor:
        """Return the teacher's logits and record the outputs of its layers."""
        logits: Tensor = self._teacher[0](images).float()
        return logits

    def loss(self, loss: Loss) -> Loss:
        """Return a loss that adds each pair's mean squared distance, divided by the teacher's mean square.

        loss: must run `teacher_logits`, which records the teacher's outputs.
        """

        def value(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
            total = loss(images, logits, labels)  # runs the teacher
            for (own, other), projection in zip(self._pairs.items(), self.projections, strict=True):
                target = _as_image(self._teacher_outputs[other]).float()
                projected = projection(_as_image(self._student_outputs[own])).float()
                if projected.shape[2:] != target.shape[2:]:
                    projected = nn.functional.adaptive_avg_pool2d(projected, (target.shape[2], target.shape[3]))
                total = total + ((projected - target) ** 2).mean() / (target**2).mean().clamp_min(1e-12)
            return total

        return value


def _recorder(outputs: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """Return a forward hook that records a module's output under a name."""

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training or not output.requires_grad:  # skips the averaged copy of the student
            outputs[name] = output

    return record


def _module(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError:
        raise unknown_name(list(recipe_modules(network)), name, "teacher.layers") from None


def _as_image(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 4 else tensor[:, :, None, None]
