"""Knowledge distillation: the choice of the teacher, its effect, features, resuming, tabulated logits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from consoles import RecordingConsole
from torch import Tensor, nn

from compress.training import teaching
from compress.training.batches import TrainingBatches, normalize
from compress.training.config import Augment, FitConfig, Teacher
from compress.training.context import Context
from compress.training.loop import predict
from compress.training.losses import Loss, cross_entropy
from runtimes.errors import InputError

MakeContext = Callable[..., Context]
FEW = {
    "epochs": 3,
    "batch_size": 8,
    "lr": 0.01,
    "warmup_epochs": 1,
    "augment": {"hflip": False},
    "label_smoothing": 0.0,
}


class Small(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(3, channels, 5, stride=2), nn.Conv2d(channels, channels, 3, stride=2)
        self.head = nn.Linear(channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.second(self.first(images).relu()).relu().mean((2, 3)))
        return logits


def distance(network: nn.Module, teacher: nn.Module, context: Context) -> float:
    images = context.prepared("val")
    shares = [torch.from_numpy(predict(module, images, "cpu")).softmax(1) for module in (network, teacher)]
    return float((shares[0] - shares[1]).abs().mean())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", [
    {"loss": "logits", "share": 1.0}, {"loss": "decoupled", "share": 1.0},
    {"loss": "features", "share": 1.0, "layers": {"second": "second"}},
])  # fmt: skip
def test_a_taught_student_is_closer_to_the_teacher_than_an_untaught_one(
    make_context: MakeContext, settings: dict[str, object]
) -> None:
    """The teacher's classes are permuted, so that its outputs contradict the labels."""
    teacher = teaching.train(Small(24, seed=1), make_context("teacher"), FitConfig(**FEW))
    teacher.head.weight.data, teacher.head.bias.data = (
        parameter.data.roll(1, 0) for parameter in teacher.head.parameters()
    )  # type: ignore[union-attr]
    requested: list[object] = []

    def give(network: object) -> nn.Module:
        requested.append(network)
        return copy.deepcopy(teacher)

    taught, alone = (make_context(name, teacher=give) for name in ("taught", "alone"))
    longer = {**FEW, "epochs": 12}
    pupil = teaching.train(Small(8, seed=2), taught, FitConfig(**longer, teacher=Teacher(**settings)))
    other = teaching.train(Small(8, seed=2), alone, FitConfig(**longer))
    assert requested == ["baseline"]
    assert isinstance(pupil, Small)
    assert not pupil.training
    assert distance(pupil, teacher, taught) < 0.5 * distance(other, teacher, taught)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("balance", [True, False])
def test_balanced_classes_are_those_of_the_train_split(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, balance: bool
) -> None:
    given: list[object] = []

    def recorded(label_smoothing: float, class_counts: list[int] | None) -> Loss:
        given.append(class_counts)
        return cross_entropy(label_smoothing, class_counts)

    monkeypatch.setattr(teaching, "cross_entropy", recorded)
    context = make_context("balanced")
    teaching.train(Small(8, seed=1), context, FitConfig(**{**FEW, "epochs": 2}, balance_classes=balance))
    counts = [sum(sample.label == label for sample in context.train) for label in range(3)]
    assert given == [counts if balance else None]


def test_before_is_the_network_before_training(make_context: MakeContext) -> None:
    network = Small(8, seed=1)
    before = copy.deepcopy(network)
    settings = FitConfig(**FEW, teacher=Teacher(network="before", share=1.0))
    context = make_context()
    trained = teaching.train(network, context, settings)
    assert distance(trained, before, context) < 0.02


@pytest.mark.usefixtures("one_thread")
def test_under_a_feature_teacher_names_are_those_of_the_student(make_context: MakeContext) -> None:
    context, student = replace(make_context(), teacher=lambda network: Small(8, 1)), Small(8, 0)
    before = copy.deepcopy(student)
    teacher = Teacher(loss="features", layers={"second": "second"})
    settings = FitConfig(**{**FEW, "epochs": 2}, teacher=teacher, freeze=("first",), lr_scale={"head": 1e-4})
    trained = teaching.train(student, context, settings)
    assert isinstance(trained, Small)
    assert torch.equal(trained.first.weight, before.first.weight)
    moved = [
        (own.weight - old.weight).abs().mean()
        for own, old in ((trained.second, before.second), (trained.head, before.head))
    ]
    assert moved[0] > 100 * moved[1] > 0


@pytest.mark.parametrize("patterns", [("student.first",), ("projections",)])
def test_names_of_the_wrapper_are_unknown(make_context: MakeContext, patterns: tuple[str, ...]) -> None:
    context = replace(make_context(), teacher=lambda network: Small(8, 1))
    teacher = Teacher(loss="features", layers={"second": "second"})
    with pytest.raises(InputError, match=f"freeze: there is no module '{patterns[0]}'"):
        teaching.train(Small(8, 0), context, FitConfig(**FEW, teacher=teacher, freeze=patterns))


def test_freezing_the_whole_student_leaves_nothing_to_train(make_context: MakeContext) -> None:
    context = replace(make_context(), teacher=lambda network: Small(8, 1))
    teacher = Teacher(loss="features", layers={"second": "second"})
    with pytest.raises(InputError, match="nothing is left to train"):
        teaching.train(Small(8, 0), context, FitConfig(**FEW, teacher=teacher, freeze=("*",)))


def test_features_of_unknown_modules_raise(make_context: MakeContext) -> None:
    context = make_context(teacher=lambda network: Small(8, 0))
    settings = FitConfig(**FEW, teacher=Teacher(loss="features", layers={"third": "second"}))
    with pytest.raises(InputError, match="there is no module 'third'; there are first, second, head"):
        teaching.train(Small(8, 0), context, settings)


@pytest.mark.usefixtures("one_thread")
def test_a_stage_with_features_resumes_bit_for_bit(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FitConfig(**FEW, teacher=Teacher(loss="features", layers={"second": "second"}), ema_decay=0.9)

    def train(context: Context) -> dict[str, Tensor]:
        return teaching.train(Small(8, 2), context, settings).state_dict()

    whole = train(make_context("whole", teacher=lambda network: Small(16, 1).eval()))
    stopped = make_context("stopped", teacher=lambda network: Small(16, 1).eval())

    class StoppedError(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise StoppedError

    with pytest.raises(StoppedError):
        train(replace(stopped, console=RecordingConsole(on_say=stop)))
    resumed = train(stopped)
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0)


class Counted(nn.Module):
    """Records the size of every batch that it gets."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.batch_sizes = network, []  # type: ignore[var-annotated]

    def __deepcopy__(self, memo: object) -> Counted:
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits."""
        self.batch_sizes.append(len(images))
        logits: Tensor = self.network(images)
        return logits


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("augment", "epochs", "times"), [
    ({"hflip": True, "vflip": True, "transpose": True}, 9, 8), ({"hflip": True}, 2, 2), ({"hflip": False}, 3, 1),
    ({"hflip": True, "vflip": True}, 3, 3), ({"hflip": False, "crop_scale": [0.5, 1.0]}, 2, 2),
])  # fmt: skip
def test_the_teacher_runs_once_per_variant_of_an_image(
    make_context: MakeContext, augment: dict[str, object], epochs: int, times: int
) -> None:
    """With more variants than epochs, it runs on the images of every epoch."""
    teacher = Counted(Small(8, seed=1))
    context = make_context("taught", teacher=lambda network: teacher)
    settings = {**FEW, "augment": augment, "epochs": epochs, "workers": 0}
    teaching.train(Small(4, seed=2), context, FitConfig(**settings, teacher=Teacher()))
    whole = len(context.train) // 8 * 8
    assert sum(teacher.batch_sizes) in (times * len(context.train), times * whole)


@pytest.mark.usefixtures("one_thread")
def test_tabulated_logits_equal_those_of_the_teacher(make_context: MakeContext) -> None:
    context, teacher = make_context("taught"), Small(8, seed=1).eval()
    config = FitConfig(**{**FEW, "augment": {"vflip": True, "transpose": True}, "epochs": 8, "batch_size": 7})
    table = teaching._teacher_logits(teacher, context, config)
    for pixels, _ in TrainingBatches(context, config).epoch(3):
        images = normalize(pixels, context.preprocessing, "cpu")
        with torch.no_grad():
            torch.testing.assert_close(table(images), teacher(images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_teachers_and_mixed_crops_work_on_a_gpu(make_context: MakeContext) -> None:
    augment = Augment(crop_scale=(0.5, 1.0), policy="trivialaugment", erase=0.2, mixup=0.2, cutmix=1.0)
    context = make_context(device="cuda", teacher=lambda network: Small(8, seed=1))
    settings = FitConfig(epochs=4, batch_size=12, augment=augment, workers=2, teacher=Teacher(), resize_from=16)
    trained = teaching.train(Small(8, seed=2), context, settings)
    assert next(trained.parameters()).device.type == "cpu"
