"""Optimizers, schedules against their formulas, scaled learning rates, frozen modules."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import nn

from compress.training.config import FitConfig
from compress.training.optimization import frozen, like_parameters, make_optimizer, make_schedule
from runtimes.errors import InputError

OptimizerName = Literal["sgd", "adamw", "rmsprop"]
OPTIMIZERS: list[OptimizerName] = ["sgd", "adamw", "rmsprop"]
LR = 0.02


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def config(**fields: Any) -> FitConfig:
    return FitConfig(**{"epochs": 10, "lr": LR, **fields})


def rates(settings: FitConfig, steps_per_epoch: int) -> list[float]:
    """Return the learning rate of each step and the one after the last step."""
    optimizer = make_optimizer(network(), settings)
    schedule = make_schedule(optimizer, settings, steps_per_epoch)
    used = []
    for _ in range(settings.epochs * steps_per_epoch):
        used.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[1]["lr"] == used[-1]
        optimizer.step()
        schedule.step()
    return [*used, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_decay_and_norms_and_biases_do_not(name: OptimizerName) -> None:
    net = network()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1)
            parameter.grad = torch.zeros_like(parameter)
    make_optimizer(net, config(optimizer=name, weight_decay=0.1)).step()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            assert (parameter < 1).all()
        else:
            assert (parameter == 1).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_trainable_parameter_is_in_one_group(name: OptimizerName) -> None:
    net = network()
    net[0].weight.requires_grad_(False)  # type: ignore[index]
    groups = make_optimizer(net, config(optimizer=name)).param_groups
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in net.parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", {"lr": LR, "momentum": 0.7, "nesterov": True}),
        ("rmsprop", {"lr": LR, "momentum": 0.7, "alpha": 0.9, "eps": 2e-3}),
        ("adamw", {"lr": LR, "betas": (0.9, 0.999)}),
    ],
)
def test_settings_are_passed_to_the_optimizer(name: OptimizerName, expected: dict[str, Any]) -> None:
    group = make_optimizer(network(), config(optimizer=name, momentum=0.7)).param_groups[0]
    assert {key: group[key] for key in expected} == expected


def test_sgd_without_momentum_is_plain() -> None:
    assert make_optimizer(network(), config(optimizer="sgd", momentum=0)).param_groups[0]["nesterov"] is False


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps_per_epoch", [1, 7])
@pytest.mark.parametrize("warmup_epochs", [1, 2.5, 5])
def test_cosine_follows_a_linear_warm_up(name: OptimizerName, steps_per_epoch: int, warmup_epochs: float) -> None:
    settings = config(optimizer=name, schedule="cosine", warmup_epochs=warmup_epochs)
    total, warmup = 10 * steps_per_epoch, round(warmup_epochs * steps_per_epoch)

    def formula(step: int) -> float:
        if step < warmup:
            return LR * (0.01 + 0.99 * step / warmup)
        return LR * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2

    assert rates(settings, steps_per_epoch) == pytest.approx([formula(step) for step in range(total + 1)], abs=1e-9)


def test_cosine_without_warm_up_starts_at_the_highest_rate() -> None:
    lrs = rates(config(schedule="cosine", warmup_epochs=0), 4)
    expected = [LR * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(41)]
    assert lrs == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("steps_per_epoch", "warmup_epochs"), [(1, 3), (7, 3), (7, 0.5), (4, 9)])
def test_onecycle_peaks_at_the_end_of_the_warm_up(
    name: OptimizerName, steps_per_epoch: int, warmup_epochs: float
) -> None:
    lrs = rates(config(optimizer=name, schedule="onecycle", warmup_epochs=warmup_epochs), steps_per_epoch)
    total, peak = 10 * steps_per_epoch, round(warmup_epochs * steps_per_epoch)

    def formula(step: int) -> float:
        if step <= peak:
            return LR + (LR / 25 - LR) * (1 + math.cos(math.pi * step / peak)) / 2
        lowest = LR / 25 / 10_000
        return lowest + (LR - lowest) * (1 + math.cos(math.pi * (step - peak) / (total - peak))) / 2

    assert lrs == pytest.approx([formula(step) for step in range(total + 1)], abs=1e-9)
    assert lrs[peak] == pytest.approx(LR) == max(lrs)


@pytest.mark.parametrize(("steps_per_epoch", "warmup_epochs"), [(7, 0), (7, 0.1), (1, 1)])
def test_onecycle_with_a_warm_up_of_a_step_or_none_rises_in_one_step(
    steps_per_epoch: int, warmup_epochs: float
) -> None:
    lrs = rates(config(schedule="onecycle", warmup_epochs=warmup_epochs), steps_per_epoch)
    assert lrs[1] == pytest.approx(LR)
    assert lrs[1:] == sorted(lrs[1:], reverse=True)


def test_onecycle_lowers_the_momentum_by_a_tenth_while_the_rate_is_high() -> None:
    settings = config(optimizer="sgd", schedule="onecycle", momentum=0.8, warmup_epochs=1)
    optimizer = make_optimizer(nn.Linear(2, 2), settings)
    schedule = make_schedule(optimizer, settings, 5)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.8)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_onecycle_works_without_momentum(name: OptimizerName) -> None:
    settings = config(optimizer=name, schedule="onecycle", momentum=0, warmup_epochs=2)
    assert max(rates(settings, 3)) == pytest.approx(LR)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_restored_state_has_the_layout_of_its_parameters(memory_format: torch.memory_format) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)).to(memory_format=memory_format)
    optimizer = make_optimizer(net, config())
    stored = {
        index: {"exp_avg": torch.randn(parameter.shape), "step": torch.tensor(3.0)}
        for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
    }
    restored = like_parameters(optimizer, stored)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(restored) == len(parameters) == 4
    for index, parameter in enumerate(parameters):
        assert restored[index]["exp_avg"].stride() == parameter.stride()
        assert torch.equal(restored[index]["exp_avg"], stored[index]["exp_avg"])
        assert restored[index]["step"] == 3


def test_a_modules_rate_is_scaled_by_the_innermost_name() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    optimizer = make_optimizer(net, config(lr_scale={"0": 0.1, "0.1": 0.5}))
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert {name: round(rates[id(parameter)] / LR, 9) for name, parameter in net.named_parameters()} == {
        "0.0.weight": 0.1, "0.0.bias": 0.1, "0.1.weight": 0.5, "0.1.bias": 0.5, "1.weight": 1, "1.bias": 1,
    }  # fmt: skip


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_scaled_rates_keep_their_ratio(schedule: Literal["cosine", "onecycle"]) -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    settings = config(lr_scale={"0": 0.1}, schedule=schedule, warmup_epochs=2)
    optimizer = make_optimizer(net, settings)
    scheduler = make_schedule(optimizer, settings, 4)
    highest = 0.0
    for _ in range(40):
        whole, scaled = (group["lr"] for group in optimizer.param_groups)
        assert scaled == pytest.approx(0.1 * whole)
        highest = max(highest, whole)
        optimizer.step()
        scheduler.step()
    assert highest == pytest.approx(LR)


def test_frozen_modules_are_trainable_after_the_block() -> None:
    net = network()
    with frozen(net, ("0", "1")) as modules:
        assert modules == [net[0], net[1]]  # type: ignore[index]
        assert [name for name, parameter in net.named_parameters() if parameter.requires_grad] == ["3.weight", "3.bias"]
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize(
    ("patterns", "message"),
    [(("features",), "freeze: there is no module 'features'; there are 0, 1"), (("*",), "nothing is left to train")],
)
def test_modules_that_can_not_be_frozen_raise(patterns: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message), frozen(network(), patterns):
        pass


def test_a_scaled_rate_of_an_unknown_module_raises() -> None:
    with pytest.raises(InputError, match="lr_scale: there is no module 'features'"):
        make_optimizer(network(), config(lr_scale={"features": 0.1}))
