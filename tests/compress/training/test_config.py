"""Settings of the training loop: limits, combinations, the side of growing images, teachers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from compress.models import mobilenet_v2
from compress.training.config import Augment, FitConfig, Teacher
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("build", "wrong", "message"),
    [
        (FitConfig, {"epochs": 3, "warmup_epochs": 3},
         "warmup_epochs: must be less than epochs: 3, not 3; set both, or remove warmup_epochs"),
        (FitConfig, {"lr": 0}, "greater than 0"),
        (FitConfig, {"lr": float("inf")}, "finite"),
        (FitConfig, {"momentum": 1}, "less than 1"),
        (FitConfig, {"ema_decay": 1}, "less than 1"),
        (FitConfig, {"batch_size": 1}, "greater than or equal to 2"),
        (FitConfig, {"batch_size": 6, "accumulate": 4},
         "accumulate: 4 parts are too many for batch_size: 6; each part needs at least two images"),
        (FitConfig, {"optimizer": "lion"}, "'sgd', 'adamw' or 'rmsprop'"),
        (FitConfig, {"teacher": {"loss": "decoupled"}, "augment": {"mixup": 0.2}},
         "teacher.loss: decoupled needs one label per image; turn off augment.mixup and cutmix"),
        (Augment, {"crop_scale": (0.5, 0.2)}, r"crop_scale: must be \[least, greatest\], not \[0.5, 0.2\]"),
        (Augment, {"crop_scale": (0, 1)}, "greater than 0"),
        (Augment, {"jitter": 1}, "Extra inputs"),
        (Augment, {"zoom": (2, 1)}, "zoom: must be"),
        (Augment, {"policy": "autoaugment"}, "randaugment"),
        (Teacher, {"loss": "features"}, "layers: required for loss: features"),
        (Teacher, {"layers": {"a": "b"}}, "not allowed for other losses"),
        (Teacher, {"network": {"arch": "mobilenet_v2"}}, "a teacher needs weights"),
        (Teacher, {"share": 0}, "greater than 0"),
        (Teacher, {"network": "other"}, "baseline"),
        (Teacher, {"temperature": 0}, "greater than 0"),
    ],
)  # fmt: skip
def test_wrong_settings_raise(build: Callable[..., Any], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build(**wrong)


@pytest.mark.parametrize(
    ("given", "warmup"),
    [
        ({}, 3),
        ({"epochs": 4}, 3),
        ({"epochs": 3}, 1),
        ({"epochs": 1}, 0.33),
        ({"epochs": 2, "warmup_epochs": 1.5}, 1.5),
    ],
)
def test_a_warmup_that_is_not_given_fits_the_epochs(given: dict[str, Any], warmup: float) -> None:
    config = FitConfig(**given)
    assert config.warmup_epochs == warmup
    assert FitConfig(**config.model_dump()) == config


def test_a_teacher_may_be_any_network_with_weights() -> None:
    teacher = Teacher(network={"arch": "mobilenet_v2", "width": 0.5, "weights": "some.safetensors"})
    assert isinstance(teacher.network, mobilenet_v2.Config)
    assert teacher.network.width == 0.5


def test_the_side_grows_linearly_to_the_full_side() -> None:
    config = FitConfig(resize_from=128, epochs=20)
    heights, widths = zip(*(config.sides(epoch, (224, 224)) for epoch in range(20)), strict=True)
    sides = list(heights)
    assert widths == heights
    assert sides[0] == 128
    assert sides == sorted(sides)
    assert all(side % 16 == 0 for side in sides)
    assert sides[15:] == [224] * 5
    assert sides[13] < 224


def test_the_side_is_constant_without_growing() -> None:
    assert FitConfig().sides(0, (100, 100)) == (100, 100)
    assert FitConfig(resize_from=128).sides(0, (100, 100)) == (100, 100)
    assert FitConfig(resize_from=128).sides(0, (100, 300)) == (100, 300)


def test_sides_of_other_crops_grow_in_their_proportions() -> None:
    config = FitConfig(resize_from=32, epochs=8)
    assert config.sides(0, (64, 256)) == (32, 128)
    assert config.sides(3, (64, 256)) == (48, 192)
    assert config.sides(6, (60, 250)) == (60, 250)


@pytest.mark.parametrize(
    ("augment", "preprocessing", "problem"),
    [
        (Augment(transpose=True), Preprocessing(55, (48, 192)), "transpose: .* needs a square crop, not 48x192"),
        (
            Augment(policy="randaugment"), Preprocessing(55, 48, mean=(0.5,) * 4, std=(0.5,) * 4, channels="rgba"),
            "policy: randaugment: is for 1 or 3 channels, not rgba",
        ),
    ],
)  # fmt: skip
def test_augmentations_that_the_images_do_not_allow_are_refused(
    augment: Augment, preprocessing: Preprocessing, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        augment.require_fit(preprocessing)
    augment.require_fit(Preprocessing(55, 48))


@pytest.mark.parametrize(
    ("fields", "only_flips"),
    [
        ({}, True), ({"hflip": False}, True), ({"vflip": True, "transpose": True}, True),
        ({"crop_scale": (0.5, 1)}, False), ({"rotate": 5}, False), ({"policy": "randaugment"}, False),
        ({"erase": 0.1}, False), ({"mixup": 0.2}, False), ({"cutmix": 1}, False),
    ],
)  # fmt: skip
def test_only_flips(fields: dict[str, Any], only_flips: bool) -> None:
    assert Augment(**fields).only_flips is only_flips


def test_reading_settings_imports_no_torch() -> None:
    code = "import sys, compress.training.config, compress.training.context; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
