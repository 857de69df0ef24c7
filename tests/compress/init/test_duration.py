"""The estimate of a recipe's duration."""

from __future__ import annotations

import pytest

from compress.init import duration
from compress.recipe.recipe import Recipe

FIT = {"epochs": 4, "batch_size": 2, "warmup_epochs": 0}
RECIPE = {
    "name": "x",
    "data": {"name": "synthetic"},
    "preprocessing": {"resize": 32, "crop": 32},
    "model": {"arch": "mobilenet_v2", "width": 0.25},
    "stages": [{"stage": "train", **FIT}],
}


@pytest.mark.usefixtures("one_thread")
def test_training_takes_longer_with_more_images_and_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    train, pruned = (
        Recipe.model_validate(RECIPE),
        Recipe.model_validate(
            {**RECIPE, "stages": [*RECIPE["stages"], {"stage": "prune", "macs": 0.5}, {"stage": "distill", **FIT}]}  # type: ignore[misc]
        ),
    )
    assert duration.estimate_s(train, 3, 20, "cpu") > duration.FIXED_S
    monkeypatch.setattr(duration, "_step_s", lambda *_: 1.0)
    assert duration.estimate_s(train, 3, 20, "cpu") == duration.FIXED_S + 40
    assert duration.estimate_s(train, 3, 1, "cpu") == duration.FIXED_S + 4
    assert duration.estimate_s(pruned, 3, 20, "cpu") == duration.FIXED_S + duration.PRUNING_S + 40 * 2.2


@pytest.mark.parametrize(("seconds", "words"), [(5, "about 1 min"), (600, "about 10 min"), (9000, "about 2.5 hours")])
def test_durations_are_rounded(seconds: float, words: str) -> None:
    assert duration.in_words(seconds) == words
