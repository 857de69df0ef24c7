"""Estimate how long a recipe takes on this machine, from a few timed training steps."""

from __future__ import annotations

import statistics
import time
from typing import Any

from compress.recipe import plugins
from compress.recipe.recipe import Recipe
from compress.training.config import FitConfig

MAX_STEPS, TIMED_S = 12, 6.0  # timing ends with the first that is reached
DISTILLING = 1.2  # a step with a teacher and a pruned network / a step without both
# Of everything that does not grow with the training images: exports, calibration, measuring; measuring layers to prune.
FIXED_S, PRUNING_S = 60.0, 120.0


def estimate_s(recipe: Recipe, classes: int, images: int, device: str) -> float:
    """Return the seconds that a recipe is expected to take. images: of the train split."""
    fits = [stage for stage in recipe.stages if isinstance(stage, FitConfig)]
    step_s = _step_s(recipe.model, classes, (fits[0].batch_size, recipe.preprocessing.crop), device)
    total_s = FIXED_S + (PRUNING_S if len(fits) < len(recipe.stages) else 0)
    for fit in fits:
        steps = fit.epochs * max(1, images // fit.batch_size)
        total_s += steps * step_s * (DISTILLING if fit.teacher else 1)
    return total_s


def in_words(seconds: float) -> str:
    """Return a duration, rounded as an estimate is."""
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} hours"


def _step_s(
    model: Any,  # Any: the Config of whichever plug-in of compress/models
    classes: int,
    shape: tuple[int, int],
    device: str,
) -> float:
    """Return the seconds of one optimizer step on random images. shape: images of a batch, side in pixels."""
    import torch

    # They import torch.
    from compress.training.losses import cross_entropy
    from compress.training.optimization import make_optimizer

    batch, side = shape
    network = plugins.load("models", model.arch).build(model, classes).to(device).train()
    network = network.to(memory_format=torch.channels_last)
    optimizer, loss = make_optimizer(network, FitConfig()), cross_entropy(0.1)
    images = torch.rand(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % classes
    times_s: list[float] = []
    while len(times_s) < MAX_STEPS and sum(times_s) < TIMED_S:
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        value = loss(images, network(images), labels)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(value.detach())  # waits for a GPU
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s[len(times_s) // 2 :])  # the first steps choose kernels and allocate memory
