"""Estimates of the duration of steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.images.samples import Data
from compress.pipeline import duration
from compress.pipeline.images import RunImages
from compress.pipeline.networks import train_networks
from compress.pipeline.steps import DONE, Steps
from compress.recipe.recipe import Recipe
from runtimes.files import read_json, write_json

FIT = {"epochs": 4, "batch_size": 2, "warmup_epochs": 0}
MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def image_s(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let training take a second per image, and give the batch sizes that were timed."""
    timed: list[int] = []

    def time_per_image_s(recipe: Recipe, classes: int, batch: int) -> float:
        timed.append(batch)
        return 1.0

    monkeypatch.setattr(duration, "time_per_image_s", time_per_image_s)
    return timed


@pytest.mark.usefixtures("one_thread")
def test_a_timed_step_takes_time_and_no_random_numbers(make_recipe: MakeRecipe) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert duration.time_per_image_s(make_recipe(), 3, 2) > 0
    assert torch.equal(torch.rand(1), expected)


def test_training_grows_with_images_epochs_and_what_else_a_step_does(
    make_recipe: MakeRecipe, stripes: Data, image_s: list[int]
) -> None:
    stages = [
        {"stage": "train", **FIT}, {"stage": "train", **FIT, "resize_from": 16},
        {"stage": "prune", "macs": 0.5, "rounds": 2, "fine_tune": FIT}, {"stage": "distill", **FIT},
        {"stage": "qat", **FIT, "teacher": None}, {"stage": "prune", "macs": 0.5},
    ]  # fmt: skip
    recipe = make_recipe(stages=stages)
    names = duration.stage_names(recipe)
    assert names == ["0-train", "1-train", "2-prune", "3-distill", "4-qat", "5-prune"]
    expected = duration.expected_s(recipe, names, stripes, {})
    training_s, validation_s = 4 * len(stripes.train), 4 * len(stripes.val) * duration.FORWARD
    assert expected["0-train"] == pytest.approx(training_s + validation_s)
    assert expected["1-train"] < expected["0-train"]
    assert expected["2-prune"] == pytest.approx(duration.PRUNING_S + training_s + validation_s)  # two rounds of half
    # Pruning left half of the network, whose teacher runs on the two variants of each image.
    teacher_s = 2 * len(stripes.train) * duration.FORWARD
    assert expected["3-distill"] == pytest.approx((training_s + validation_s) / 2 + teacher_s)
    assert expected["4-qat"] == pytest.approx((duration.FAKE_QUANTIZATION * training_s + validation_s) / 2)
    assert expected["5-prune"] == duration.PRUNING_S
    assert image_s == [2]  # timed once


def test_nothing_is_timed_if_no_training_needs_it(make_recipe: MakeRecipe, stripes: Data, image_s: list[int]) -> None:
    recipe = make_recipe(stages=[{"stage": "train", **FIT}])
    earlier = {"0-train": 40.0}
    names = ["check-images", "0-train", "int8-x86-vnni"]
    expected = duration.expected_s(recipe, names, stripes, earlier)
    assert expected == {"check-images": duration.OTHER_S, "0-train": 40, "int8-x86-vnni": duration.USUAL_S["int8"]}
    assert image_s == []


def stage_step(folder: Path, name: str, seconds: float, arguments: Any, age_s: float = 0) -> None:
    """Write the record of a finished step."""
    folder.mkdir(parents=True)
    write_json(folder / DONE, {"step": name, "duration_s": seconds, "arguments": arguments})
    os.utime(folder / DONE, (1e9 - age_s, 1e9 - age_s))


def test_the_newest_earlier_step_on_the_same_images_counts_by_epochs(
    make_recipe: MakeRecipe, make_images: Callable[[Steps], RunImages], new_steps: Callable[[], Steps], tmp_path: Path
) -> None:
    recipe, images = make_recipe(stages=[{"stage": "train", **FIT}]), make_images(new_steps())
    cache = images.steps.cache / "steps"
    model, train = duration.identity(recipe.model), duration.identity(images.of("train"))
    same = {"previous": {"sections": [model]}, "train": train, "setup": {"config": {"epochs": 8}}}
    stage_step(cache / "0-train-a", "0-train", 100, same)
    stage_step(cache / "0-train-b", "0-train", 900, same, age_s=10)
    stage_step(cache / "0-train-c", "0-train", 7, {**same, "train": "others"}, age_s=-10)
    stage_step(cache / "0-train-d", "0-train", 7, {}, age_s=-10)
    stage_step(cache / "measure-a", "measure-here", 5, {})
    (cache / "broken").mkdir()
    (cache / "broken" / DONE).write_text("{")
    assert duration.earlier_s(recipe, images) == {"0-train": 50, "measure-here": 5}


def test_a_finished_stage_is_an_earlier_one_of_the_same_stage(
    make_recipe: MakeRecipe, make_images: Callable[[Steps], RunImages], new_steps: Callable[[], Steps]
) -> None:
    recipe, images = make_recipe(stages=[{"stage": "train", **FIT, "epochs": 1}]), make_images(new_steps())
    train_networks(recipe, images.steps, images)
    recorded = read_json(images.steps.folders["0-train"] / DONE)["duration_s"]
    longer = make_recipe(stages=[{"stage": "train", **FIT, "epochs": 3}])
    assert duration.earlier_s(longer, images)["0-train"] == pytest.approx(3 * recorded)


@pytest.mark.parametrize(("seconds", "words"), [
    (5, "under 10 s"), (34, "about 30 s"), (89, "about 90 s"), (600, "about 10 min"), (9000, "about 2.5 hours"),
])  # fmt: skip
def test_durations_are_rounded(seconds: float, words: str) -> None:
    assert duration.in_words(seconds) == words
