"""The training loop: learning, resuming, checkpoints, gradients, averaging, history and errors."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from consoles import RecordingConsole
from torch import nn

from compress.models import mobilenet_v2
from compress.networks import checkpoint
from compress.process.signals import TerminatedError
from compress.training import loop
from compress.training.config import Augment, FitConfig
from compress.training.context import Context
from compress.training.loop import STATE_FILE, fit, predict
from compress.training.losses import cross_entropy
from runtimes.errors import CompressError, InputError
from runtimes.evalset import EvalSet
from runtimes.metrics import Accuracy, accuracy

pytestmark = pytest.mark.usefixtures("one_thread")
MakeContext = Callable[..., Context]
PLAIN = Augment(hflip=False)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


class StopError(Exception):
    """Simulates Ctrl-C or a power failure."""


def convolutions(seed: int = 0) -> nn.Module:
    """Return a network that learns stripes in a second, with BatchNorm and dropout, whose state must be resumed."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 3),
    )  # fmt: skip


def small_mobilenet() -> nn.Module:
    torch.manual_seed(0)
    return mobilenet_v2.build(mobilenet_v2.Config(width=0.25), 3)


def validate(network: nn.Module, images: EvalSet) -> Accuracy:
    assert images.labels is not None
    return accuracy(predict(network, images, "cpu"), images.labels)


def config(**fields: Any) -> FitConfig:
    return FitConfig(**{"epochs": 4, "batch_size": 6, "lr": 0.01, "warmup_epochs": 1, "augment": PLAIN, **fields})


def stop_in(epoch: int) -> RecordingConsole:
    def progress(what: str, done: int, total: int) -> None:
        if f"epoch {epoch}/" in what and done % 6 == 3:
            raise StopError

    return RecordingConsole(on_progress=progress)


def history(context: Context) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((context.folder / "history.json").read_text())
    return content


def identical(first: nn.Module, second: nn.Module) -> bool:
    state, other = first.state_dict(), second.state_dict()
    return list(state) == list(other) and all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize(
    "settings",
    [
        config(epochs=8),
        config(epochs=8, optimizer="sgd", lr=0.05, schedule="cosine", weight_decay=1e-4),
        config(epochs=8, optimizer="rmsprop", lr=0.005, schedule="cosine", weight_decay=1e-4, ema_decay=0.5),
    ],
    ids=lambda settings: settings.optimizer,
)
def test_fit_learns_the_stripes(make_context: MakeContext, settings: FitConfig) -> None:
    context = make_context()
    before = validate(convolutions(), context.prepared("val")).top1
    network = fit(convolutions(), context, settings, cross_entropy(0.1))
    assert before < 0.7
    assert validate(network, context.prepared("val")).top1 >= 0.95
    assert not any(module.training for module in network.modules())


def test_fit_depends_only_on_the_seed(make_context: MakeContext) -> None:
    settings = config(epochs=2)
    first, second, other = (
        fit(convolutions(), make_context(name, seed=seed), settings, cross_entropy(0.1))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert identical(first, second)
    assert not identical(first, other)


RESUMED = [
    pytest.param(convolutions, config(ema_decay=0.9), 2, id="adamw-onecycle-ema"),
    pytest.param(convolutions, config(ema_decay=0.9), 4, id="adamw-onecycle-ema-late"),
    pytest.param(convolutions, config(optimizer="sgd", schedule="cosine"), 2, id="sgd-cosine-in-warm-up"),
    pytest.param(convolutions, config(optimizer="sgd", schedule="cosine"), 3, id="sgd-cosine"),
    pytest.param(convolutions, config(optimizer="sgd", momentum=0), 3, id="sgd-plain-onecycle"),
    pytest.param(convolutions, config(optimizer="rmsprop", lr=1e-3), 3, id="rmsprop-onecycle"),
    pytest.param(
        convolutions, config(augment=Augment(vflip=True, crop_scale=(0.5, 1.0)), workers=0), 3, id="augmented"
    ),
    pytest.param(small_mobilenet, config(epochs=2, ema_decay=0.9), 2, id="mobilenet"),
]


@pytest.mark.parametrize(("build", "settings", "epoch"), RESUMED)
def test_a_resumed_run_ends_with_the_same_bits(
    make_context: MakeContext, build: Callable[[], nn.Module], settings: FitConfig, epoch: int
) -> None:
    whole = make_context("whole")
    expected = fit(build(), whole, settings, cross_entropy(0.1))

    with pytest.raises(StopError):
        fit(build(), make_context("cut", console=stop_in(epoch)), settings, cross_entropy(0.1))
    console = RecordingConsole()
    resumed = make_context("cut", console=console)
    assert len(history(resumed)) == epoch - 1
    torch.manual_seed(99)
    result = fit(build(), resumed, settings, cross_entropy(0.1))
    assert console.said[0] == f"resumed after epoch {epoch - 1} of {settings.epochs}"
    assert len(console.said) == 1 + settings.epochs - (epoch - 1)
    assert identical(result, expected)
    assert history(resumed) == history(whole)


@pytest.mark.parametrize(("build", "settings", "epoch"), RESUMED)
def test_a_terminated_run_resumes_inside_its_epoch_with_the_same_bits(
    make_context: MakeContext, build: Callable[[], nn.Module], settings: FitConfig, epoch: int
) -> None:
    whole = make_context("whole")
    expected = fit(build(), whole, settings, cross_entropy(0.1))

    def progress(what: str, done: int, total: int) -> None:
        if done % 6 == 3 and f"epoch {epoch}/" in what:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TerminatedError, match=f"resume after step 3 of cut, epoch {epoch}/") as caught:
        fit(build(), make_context("cut", console=RecordingConsole(on_progress=progress)), settings, cross_entropy(0.1))
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    console = RecordingConsole()
    resumed = make_context("cut", console=console)
    torch.manual_seed(99)
    result = fit(build(), resumed, settings, cross_entropy(0.1))
    assert console.said[0] == f"resumed after step 3 of 6 in epoch {epoch} of {settings.epochs}"
    assert console.events[0][1] == (epoch - 1) * 6 + 4
    assert identical(result, expected)
    assert history(resumed) == history(whole)


def test_a_signal_during_validation_terminates_after_the_epoch(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the last epoch, because the scheduler would kill a pipeline that continues."""
    expected = fit(convolutions(), make_context("whole"), config(epochs=2), cross_entropy(0.1))
    original = loop.predict

    def predict_and_signal(*arguments: Any) -> Any:
        if calls:  # the second time
            os.kill(os.getpid(), signal.SIGTERM)
        calls.append(True)
        return original(*arguments)

    calls: list[bool] = []
    context = make_context("cut")
    monkeypatch.setattr(loop, "predict", predict_and_signal)
    with pytest.raises(TerminatedError, match="resume after epoch 2/2 of cut"):
        fit(convolutions(), context, config(epochs=2), cross_entropy(0.1))
    assert len(history(context)) == 2
    assert identical(fit(convolutions(), make_context("cut"), config(epochs=2), cross_entropy(0.1)), expected)


def test_a_checkpoint_is_written_every_few_minutes(make_context: MakeContext) -> None:
    context = make_context()
    written: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        if (context.folder / STATE_FILE).exists():
            state = json.loads(checkpoint.load_tensors(context.folder / STATE_FILE)[1]["state"])
            written.append((state["epoch"], state["step"]))

    often = config(epochs=2, checkpoint_minutes=1e-9)
    fit(convolutions(), replace(context, console=RecordingConsole(on_progress=progress)), often, cross_entropy(0.1))
    assert written == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]


def test_if_the_newest_checkpoint_is_damaged_the_one_before_is_loaded(make_context: MakeContext) -> None:
    expected = fit(convolutions(), make_context("whole"), config(), cross_entropy(0.1))
    with pytest.raises(StopError):
        fit(convolutions(), make_context("cut", console=stop_in(4)), config(), cross_entropy(0.1))
    console = RecordingConsole()
    context = make_context("cut", console=console)
    newest = context.folder / STATE_FILE
    newest.write_bytes(newest.read_bytes()[:999])
    assert identical(fit(convolutions(), context, config(), cross_entropy(0.1)), expected)
    assert "training-state.safetensors: not a safetensors file" in console.said[0]
    assert console.said[0].endswith("; loading the checkpoint before it")
    assert console.said[1] == "resumed after epoch 2 of 4"


def test_an_accumulated_batch_has_the_gradient_of_the_whole_batch(make_context: MakeContext) -> None:
    def without_statistics() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(8, 3))  # fmt: skip

    plain = config(epochs=1, batch_size=7, optimizer="sgd", warmup_epochs=0)
    whole, parts = (
        fit(without_statistics(), make_context(str(count)), plain.model_copy(update={"accumulate": count}),
            cross_entropy(0.1))
        for count in (1, 3)
    )  # fmt: skip
    for tensor, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-5, atol=1e-6)
    assert history(make_context("3"))[0]["train_loss"] == pytest.approx(history(make_context("1"))[0]["train_loss"])


@pytest.mark.parametrize(("images", "batch_size", "accumulate", "parts"), [
    (3, 32, 2, [3]), (3, 4, 2, [3]), (2, 8, 4, [2]), (5, 8, 4, [3, 2]), (13, 13, 6, [3, 2, 2, 2, 2, 2]),
    (8, 8, 4, [2] * 4),
])  # fmt: skip
def test_batchnorm_never_sees_a_single_image(
    make_context: MakeContext, images: int, batch_size: int, accumulate: int, parts: list[int]
) -> None:
    context = make_context()
    context = replace(context, train=context.train[:images])
    settings = config(epochs=1, warmup_epochs=0, batch_size=batch_size, accumulate=accumulate)
    network, seen = small_mobilenet(), []
    network.train().register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if module.training else None
    )
    fit(network, context, settings, cross_entropy(0.0))
    assert seen == parts


def test_one_training_image_is_refused_unless_no_batchnorm_is_trained(make_context: MakeContext) -> None:
    context = make_context()
    context = replace(context, train=context.train[:1])
    settings = config(epochs=1, warmup_epochs=0)
    with pytest.raises(InputError, match="there is one training image, and BatchNorm needs two"):
        fit(small_mobilenet(), context, settings, cross_entropy(0.0))
    frozen = config(epochs=1, warmup_epochs=0, freeze=("features",))
    fit(small_mobilenet(), context, frozen, cross_entropy(0.0))


@pytest.mark.parametrize(("ranks", "sync", "refused"), [(2, False, True), (2, True, False), (1, False, False)])
def test_processes_with_one_image_each_are_refused(
    ranks: int, sync: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.distributed, "world_size", lambda: ranks)
    settings = config(sync_batchnorm=sync)
    with pytest.raises(InputError, match=r"a batch of 3 images.*2 processes") if refused else nullcontext():
        loop._require_statistics(small_mobilenet(), [], 3, settings)


def test_the_gradient_norm_is_clipped(make_context: MakeContext) -> None:
    network, step = convolutions(), config(epochs=1, batch_size=36, optimizer="sgd", momentum=0, weight_decay=0,
                                           schedule="cosine", warmup_epochs=0, lr=1.0, clip_norm=1e-3)  # fmt: skip
    before = [parameter.detach().clone() for parameter in network.parameters()]
    fit(network, make_context(), step, cross_entropy(0.1))
    moved = sum(
        float(((tensor.detach() - other) ** 2).sum())
        for tensor, other in zip(network.parameters(), before, strict=True)
    )
    assert moved**0.5 == pytest.approx(1e-3, rel=1e-3)


def test_layers_compute_in_bfloat16(make_context: MakeContext) -> None:
    kinds: set[torch.dtype] = set()
    network = convolutions()
    network[0].register_forward_hook(
        lambda module, inputs, output: kinds.add(output.dtype) if module.training else None
    )
    fit(network, make_context(), config(epochs=2, precision="bfloat16"), cross_entropy(0.1))
    assert kinds == {torch.bfloat16}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_a_run_stopped_in_its_first_epoch_starts_again(make_context: MakeContext) -> None:
    expected = fit(convolutions(), make_context("whole"), config(epochs=2), cross_entropy(0.1))
    with pytest.raises(StopError):
        fit(convolutions(), make_context("cut", console=stop_in(1)), config(epochs=2), cross_entropy(0.1))
    assert not (make_context("cut").folder / STATE_FILE).exists()
    assert identical(fit(convolutions(), make_context("cut"), config(epochs=2), cross_entropy(0.1)), expected)


def test_a_finished_run_is_not_trained_again(make_context: MakeContext) -> None:
    expected = fit(convolutions(), make_context(), config(epochs=2), cross_entropy(0.1))

    def forbidden(what: str, done: int, total: int) -> None:
        raise AssertionError(what)

    again = fit(
        convolutions(seed=5),
        make_context(console=RecordingConsole(on_progress=forbidden)),
        config(epochs=2),
        cross_entropy(0.1),
    )
    assert identical(again, expected)


def test_a_damaged_checkpoint_names_the_remedy(make_context: MakeContext) -> None:
    context = make_context()
    (context.folder / STATE_FILE).write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"training-state\.safetensors: not a safetensors file .*; run with --fresh"):
        fit(convolutions(), context, config(), cross_entropy(0.1))


def test_the_averaged_network_is_the_result(make_context: MakeContext) -> None:
    """After the first step a copy, then `decay * average + (1 - decay) * network`, running statistics included."""
    network, decay = convolutions(), 0.8
    average: dict[str, torch.Tensor] = {}

    def follow(what: str, done: int, total: int) -> None:
        for name, value in network.state_dict().items():
            now = value.detach().double()
            average[name] = decay * average[name] + (1 - decay) * now if name in average else now.clone()

    result = fit(
        network,
        make_context(console=RecordingConsole(on_progress=follow)),
        config(epochs=2, ema_decay=decay),
        cross_entropy(0.1),
    )
    for name, value in result.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-4, atol=1e-5)
    assert not torch.equal(result.state_dict()["9.weight"], network.state_dict()["9.weight"])


def test_without_an_average_the_network_itself_is_the_result(make_context: MakeContext) -> None:
    network = convolutions()
    assert fit(network, make_context(), config(epochs=2), cross_entropy(0.1)) is network


def test_history_describes_every_epoch(make_context: MakeContext) -> None:
    context = make_context()
    losses: list[float] = []
    plain = cross_entropy(0.0)

    def loss(images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert images.shape == (6, 3, 32, 32)
        value = plain(images, logits, labels)
        losses.append(float(value.detach()))
        return value

    network = fit(convolutions(), context, config(epochs=3), loss)
    content = history(context)
    assert [entry["epoch"] for entry in content] == [1, 2, 3]
    assert [entry["train_loss"] for entry in content] == pytest.approx(np.reshape(losses, (3, 6)).mean(1), rel=1e-5)
    assert content[-1]["lr"] == pytest.approx(0.01 / 25 / 10_000)
    last = validate(network, context.prepared("val"))
    assert (content[-1]["val"]["top1"], content[-1]["val"]["loss"]) == (last.top1, last.loss)
    assert content[-1]["val"]["images"] == 9


def test_progress_counts_up_to_the_last_step(make_context: MakeContext) -> None:
    console = RecordingConsole()
    context = make_context(console=console)
    fit(convolutions(), context, config(epochs=2), cross_entropy(0.1))
    assert [done for _, done, _ in console.events] == list(range(1, 13))
    assert {total for _, _, total in console.events} == {12}
    assert console.events[0][0] == "0-train, epoch 1/2"
    assert console.said[1].startswith("epoch 2/2: loss ")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_names_the_epoch(make_context: MakeContext, value: str) -> None:
    steps = 0

    def loss(images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return logits.sum() * (float(value) if steps == 9 else 0.0)

    context = make_context()
    with pytest.raises(CompressError) as caught:
        fit(convolutions(), context, config(), loss)
    assert str(caught.value) == "the training loss became nan in epoch 2; try a lower lr than 0.01" or (
        value == "inf" and "in epoch 2; try a lower lr than 0.01" in str(caught.value)
    )
    assert len(history(context)) == 1


def test_weights_that_diverge_in_the_last_step_of_an_epoch_raise(make_context: MakeContext) -> None:
    def loss(images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits - logits.detach()).abs().sqrt().sum()  # finite, but its gradient is not

    with pytest.raises(CompressError, match="epoch 1"):
        fit(convolutions(), make_context(), config(batch_size=36, schedule="cosine"), loss)


def test_no_checkpoint_with_diverged_weights_is_written(make_context: MakeContext) -> None:
    steps, often, plain = 0, config(checkpoint_minutes=1e-9), cross_entropy(0.0)

    def loss(images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        once = (logits - logits.detach()).abs().sqrt().sum() if steps == 8 else 0.0  # its gradient is NaN
        return plain(images, logits, labels) + once

    expected = fit(convolutions(), make_context("whole"), config(), plain)
    with pytest.raises(CompressError, match="weights became nan in epoch 2"):
        fit(convolutions(), make_context("cut"), often, loss)
    assert identical(fit(convolutions(), make_context("cut"), often, plain), expected)


def test_predictions_are_in_eval_mode_and_in_order(make_context: MakeContext) -> None:
    images = make_context().prepared("train")
    network = convolutions().train()
    logits = predict(network, images, "cpu")
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(images.preprocessing.normalize(images.images)))
    assert (logits.shape, logits.dtype) == ((36, 3), np.float32)
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_frozen_modules_keep_their_weights_and_statistics(make_context: MakeContext) -> None:
    before = convolutions().state_dict()
    trained = fit(convolutions(), make_context(), config(epochs=2, freeze=("0", "1")), cross_entropy(0.1))
    after = trained.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if name.startswith(("0.", "1."))}
    assert all(parameter.requires_grad for parameter in trained.parameters())


def test_images_grow_during_training(make_context: MakeContext) -> None:
    sides: list[int] = []
    network = convolutions()

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training:
            sides.append(inputs[0].shape[-1])

    network.register_forward_pre_hook(note)
    context = make_context()
    trained = fit(network, context, config(epochs=8, resize_from=16), cross_entropy(0.1))
    assert sides == sorted(sides)
    assert {16, 32} == set(sides)
    assert validate(trained, context.prepared("val")).top1 >= 0.9


@pytest.mark.parametrize("epoch", [1, 3])
def test_mixed_repeated_and_growing_images_resume_with_the_same_bits(make_context: MakeContext, epoch: int) -> None:
    augment = Augment(crop_scale=(0.6, 1.0), policy="randaugment", erase=0.3, mixup=0.2, cutmix=1.0)
    settings = config(augment=augment, workers=0, repeats=2, resize_from=16, lr_scale={"0": 0.5}, ema_decay=0.9)
    whole = fit(convolutions(), make_context("whole"), settings, cross_entropy(0.1))
    parts = make_context("parts")
    with pytest.raises(StopError):
        fit(convolutions(), replace(parts, console=stop_in(epoch)), settings, cross_entropy(0.1))
    assert identical(whole, fit(convolutions(), parts, settings, cross_entropy(0.1)))


def on_gpu(**fields: Any) -> FitConfig:
    return config(epochs=12, batch_size=12, **fields)


@needs_gpu
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_a_gpu_learns_in_every_precision(make_context: MakeContext, precision: str) -> None:
    context = make_context(device="cuda")
    settings = on_gpu(precision=precision, ema_decay=0.8, clip_norm=5)
    trained = fit(convolutions(), context, settings, cross_entropy(0.0)).to("cuda")
    images = context.prepared("val")
    assert images.labels is not None
    assert accuracy(predict(trained, images, "cuda"), images.labels).top1 >= 0.85


@needs_gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_on_a_gpu_resumes(make_context: MakeContext, precision: str) -> None:
    settings = on_gpu(precision=precision, accumulate=2)
    whole = fit(convolutions(), make_context("whole", device="cuda"), settings, cross_entropy(0.0))
    parts = make_context("parts", device="cuda")

    def stop(line: str) -> None:
        if line.startswith("epoch 6/"):
            raise StopError

    with pytest.raises(StopError):
        fit(convolutions(), replace(parts, console=RecordingConsole(on_say=stop)), settings, cross_entropy(0.0))
    resumed = fit(convolutions(), parts, settings, cross_entropy(0.0))
    for tensor, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, other, atol=0.02, rtol=0.02)  # the order of sums on a GPU varies
