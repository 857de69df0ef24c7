"""Checks before any work: missing weights, names that match nothing, and budgets that could not fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.images.samples import Data, Sample
from compress.pipeline import preflight
from compress.pipeline import run as pipeline
from compress.pipeline.run_folder import RunFolder
from compress.recipe.recipe import Recipe
from runtimes.console import SilentConsole
from runtimes.errors import InputError, UnavailableError

MakeRecipe = Callable[..., Recipe]
TRAIN: dict[str, Any] = {"stage": "train", "epochs": 2, "warmup_epochs": 0}
QAT: dict[str, Any] = {"stage": "qat", "epochs": 2}
PRUNE: dict[str, Any] = {"stage": "prune", "macs": 0.5}
FEATURES = {"loss": "features", "network": "before", "layers": {"features.1": "features.1"}}


@pytest.mark.parametrize("stages", [
    [{**TRAIN, "freeze": ["features"], "lr_scale": {"classifier": 0.1, "features.1*": 2}}],
    [{**TRAIN, "freeze": ["features.0.1"], "teacher": FEATURES}],
    [{**QAT, "freeze": ["features.0", "features.0.0"], "lr_scale": {"*.conv.*": 0.1}}],
    [{**PRUNE, "keep": ["features.1?.*"], "limits": {"features.2.conv.0.0": 0.5},
      "rounds": 2, "fine_tune": {"epochs": 1, "warmup_epochs": 0, "freeze": ["classifier"]}}],
])  # fmt: skip
def test_names_that_match_are_accepted(make_recipe: MakeRecipe, stages: list[dict[str, Any]]) -> None:
    preflight.require_recipe(make_recipe(stages=[TRAIN, *stages]))  # a network teaches after it was trained


def test_a_random_network_as_teacher_is_found(make_recipe: MakeRecipe) -> None:
    with pytest.raises(InputError, match=r"^stages\.0\.teacher: the network 'before' has random weights there"):
        preflight.require_recipe(make_recipe(stages=[QAT]))


@pytest.mark.parametrize(("stage", "message"), [
    ({**TRAIN, "freeze": ["featurs"]}, "freeze: there is no module 'featurs'; did you mean features"),
    ({**TRAIN, "freeze": ["features", "x.*"]}, "freeze: there is no module 'x.*'; there are features, classifier,"),
    ({**TRAIN, "lr_scale": {"head": 0.1}}, "lr_scale: there is no module 'head'"),
    ({**TRAIN, "freeze": ["*"]}, "freeze: *: nothing is left to train"),
    ({**TRAIN, "freeze": ["student.features"], "teacher": FEATURES}, "freeze: there is no module 'student.features'"),
    ({**TRAIN, "teacher": {**FEATURES, "layers": {"features.99": "features.1"}}},
     "teacher.layers: there is no module 'features.99'; did you mean features.9"),
    ({**TRAIN, "teacher": {**FEATURES, "layers": {"features.1": "features.*"}}},
     "teacher.layers: there is no module 'features.*'"),
    ({**TRAIN, "teacher": {**FEATURES, "layers": {"features.1": "layer1"},
                           "network": {"arch": "resnet", "depth": 18, "weights": "IMAGENET1K_V1"}}}, None),
    ({**TRAIN, "teacher": {**FEATURES, "network": {"arch": "resnet", "depth": 18, "weights": "IMAGENET1K_V1"}}},
     "teacher.layers: there is no module 'features.1'; there are conv1, bn1"),
    ({**QAT, "freeze": ["features.0.1"]}, "freeze: there is no module 'features.0.1'"),  # a BatchNorm, which is folded
    ({**QAT, "freeze": ["features", "classifier"]}, "freeze: features, classifier: nothing is left to train"),
    ({**QAT, "lr_scale": {"weights": 0.1}}, "lr_scale: there is no module 'weights'"),
    ({**PRUNE, "keep": ["features.0.1"]}, "keep: there is no layer 'features.0.1'; did you mean features.0.0"),
    ({**PRUNE, "limits": {"conv*": 0.5}}, "limits: there is no layer 'conv*'"),
    ({**PRUNE, "fine_tune": {"epochs": 1, "warmup_epochs": 0, "freeze": ["body"]}},
     "fine_tune.freeze: there is no module 'body'"),
])  # fmt: skip
def test_a_name_that_matches_nothing_is_named_with_its_place(
    make_recipe: MakeRecipe, stage: dict[str, Any], message: str | None
) -> None:
    recipe = make_recipe(stages=[TRAIN, stage])
    if message is None:
        preflight.require_recipe(recipe)
        return
    with pytest.raises(InputError) as raised:
        preflight.require_recipe(recipe)
    assert str(raised.value).startswith(f"stages.1.{message}")
    assert "\n" not in str(raised.value)


def test_all_problems_are_reported_at_once(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    teacher = {"network": {"arch": "resnet", "weights": str(tmp_path / "teacher.pth")}}
    stages = [{**TRAIN, "freeze": ["a"], "teacher": teacher}, {**PRUNE, "keep": ["b"]}]
    model = {"arch": "mobilenet_v2", "weights": str(tmp_path / "none" / "x.pth")}
    with pytest.raises(InputError) as raised:
        preflight.require_recipe(make_recipe(model=model, stages=stages))
    lines = str(raised.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "model.weights", "stages.0.teacher.network.weights", "stages.0.freeze", "stages.1.keep",
    ]  # fmt: skip
    assert "no such file" in lines[0]
    assert "teacher.pth: no such file" in lines[1]


def test_unknown_published_weights_are_named_with_the_known_ones(make_recipe: MakeRecipe) -> None:
    with pytest.raises(InputError, match=r"^model\.weights: no 'V9' for .*; choose from IMAGENET1K_V1"):
        preflight.require_recipe(make_recipe(model={"arch": "resnet", "weights": "V9"}))


def test_a_package_that_is_not_installed_is_a_problem_of_this_machine(make_recipe: MakeRecipe) -> None:
    model = {"arch": "resnet", "weights": "package:not_installed_here"}
    with pytest.raises(UnavailableError, match=r"^model\.weights: package 'not_installed_here' is not installed"):
        preflight.require_recipe(make_recipe(model=model))
    with pytest.raises(InputError, match=r"^stages\.0\.freeze: there is no module 'a'[^\n]*$"):
        preflight.require_recipe(make_recipe(model=model, stages=[{**TRAIN, "freeze": ["a"]}]))


def test_a_run_makes_the_checks_before_any_work(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(stages=[TRAIN, {**QAT, "freeze": ["nothing"]}])
    folder = RunFolder(tmp_path / "run-folder", recipe.name, fresh=False)
    with pytest.raises(InputError, match=r"^stages\.1\.freeze: there is no module 'nothing'"):
        pipeline.run(recipe, folder, SilentConsole(), lambda *_: None)
    assert not (tmp_path / "run-folder" / "steps").exists()


def unlabelled(count: int) -> tuple[Sample, ...]:
    return tuple(Sample(f"{index}.png", Path(f"{index}.png"), None) for index in range(count))


@pytest.mark.parametrize(("settings", "calibration", "message"), [
    ({"max_top1_drop_pp": 1}, unlabelled(20), "quantize.max_top1_drop_pp: the calibration images have no labels"),
    ({"min_agreement": 0.9}, unlabelled(9), "quantize.min_agreement: 9 calibration images are too few"),
    ({"min_agreement": 0.9}, unlabelled(10), None), ({"max_top1_drop_pp": 1}, (), None), ({}, unlabelled(1), None),
])  # fmt: skip
def test_a_budget_that_could_not_fail_is_refused_before_any_work(
    make_recipe: MakeRecipe, stripes: Data, settings: dict[str, Any], calibration: tuple[Sample, ...],
    message: str | None,
) -> None:  # fmt: skip
    recipe = make_recipe(quantize={"calibration_images": 32, **settings})
    data = replace(stripes, calibration=calibration)
    if message is None:
        preflight.require_data(recipe, data)
        return
    with pytest.raises(InputError, match=message):
        preflight.require_data(recipe, data)


@pytest.mark.parametrize(("sections", "message"), [
    ({"preprocessing": {"crop": [32, 96]}, "stages": [{**TRAIN, "augment": {"transpose": True}}]},
     r"^stages\.0\.augment\.transpose: swaps rows and columns, so it needs a square crop, not 32x96"),
    ({"preprocessing": {"crop": [32, 96]}, "stages": [TRAIN, {**PRUNE, "rounds": 2, "fine_tune": {
        "epochs": 1, "warmup_epochs": 0, "augment": {"transpose": True}}}]},
     r"^stages\.1\.fine_tune\.augment\.transpose: "),
    ({"preprocessing": {"crop": 32, "channels": 4}, "stages": [{**TRAIN, "augment": {"policy": "trivialaugment"}}]},
     r"^stages\.0\.augment\.policy: trivialaugment: is for 1 or 3 channels, not rgba"),
    ({"preprocessing": {"crop": [30, 96], "channels": 1}, "model": {"arch": "vgg", "depth": 11}},
     r"^model: vgg: the network can't take images of 1 channel and 30 x 96 pixels \(.*\); change the section"),
])  # fmt: skip
def test_images_that_the_network_or_the_augmentation_does_not_take_are_refused(
    make_recipe: MakeRecipe, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        preflight.require_recipe(make_recipe(**sections))


def test_long_grey_images_are_accepted(make_recipe: MakeRecipe) -> None:
    preflight.require_recipe(make_recipe(preprocessing={"crop": [32, 96], "channels": 1}, stages=[TRAIN]))


def test_training_needs_two_images(make_recipe: MakeRecipe, stripes: Data) -> None:
    data = replace(stripes, train=stripes.train[:1])
    preflight.require_data(make_recipe(), data)
    with pytest.raises(InputError, match="training needs at least two images"):
        preflight.require_data(make_recipe(stages=[TRAIN]), data)


def test_a_data_set_elsewhere_is_not_checked_and_one_here_is(
    make_recipe: MakeRecipe, make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError, match=r"^data\.root: s3://.* is not on this machine$"):
        preflight.require_data_here(make_recipe(data={"name": "imagenet", "root": "s3://bucket/imagenet"}))
    folders = {"root": str(tmp_path / "none"), "calibration": str(tmp_path / "photos")}
    with pytest.raises(InputError) as raised:
        preflight.require_data_here(make_recipe(data={"name": "imagefolder", **folders}))
    assert [line.partition(": no such file or folder")[0] for line in str(raised.value).splitlines()] == [
        f"data.{key}: {value}" for key, value in folders.items()
    ]
    preflight.require_data_here(make_recipe())
    one_class = make_recipe(data={"name": "imagefolder", "root": str(make_tree("one", {"cat": 3}))})
    with pytest.raises(InputError, match="at least 2 classes"):
        preflight.require_data_here(one_class)


def test_own_networks_are_tried_before_any_work(make_recipe: MakeRecipe, code: Callable[..., Path]) -> None:
    code("from torch import nn\n"
         "def good(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
         "def bad(num_classes): return nn.Flatten()")  # fmt: skip
    preflight.require_recipe(make_recipe(model={"arch": "my_net:good"}))
    teacher = {"network": {"arch": "my_net:bad", "weights": __file__}}
    recipe = make_recipe(model={"arch": "my_net:bad"}, stages=[TRAIN, {**TRAIN, "teacher": teacher}])
    with pytest.raises(InputError) as caught:
        preflight.require_recipe(recipe)
    problem = "my_net:bad: for images (2, 3, 32, 32) in training mode and 10 classes it returns (2, 3072) of"
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"model.{problem}")
    assert second.startswith(f"stages.1.teacher.network.{problem}")


VIT = {"arch": "timm", "name": "test_vit"}


def test_images_that_a_network_of_timm_cant_take_are_found(make_recipe: MakeRecipe) -> None:
    teacher = {"network": {**VIT, "weights": "/no/x.pth"}}
    wrong = make_recipe(model=VIT, stages=[{**TRAIN, "resize_from": 16, "teacher": teacher}])
    with pytest.raises(InputError) as caught:
        preflight.require_recipe(wrong)
    first, second = str(caught.value).splitlines()
    assert first.startswith("stages.0.teacher.network.weights: /no/x.pth: no such file")
    assert second == "stages.0.resize_from: 16: the network takes images of one size only; remove resize_from"
    small = make_recipe(model={**VIT, "name": "test_maxvit"}, preprocessing={"resize": 32, "crop": 31})
    with pytest.raises(InputError, match=r"^model: test_maxvit: the network can't take images of 3 .* 31 x 31 pixels"):
        preflight.require_recipe(small)
    preflight.require_recipe(make_recipe(model=VIT))


def test_weights_of_the_hub_are_looked_up(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(preflight.hub, "require", lambda weights: fetched.append(weights))
    monkeypatch.setattr(preflight, "weights_file", lambda weights: fetched.append(weights))
    model = {"arch": "mobilenet_v2", "width": 0.25, "weights": "hf:me/net"}
    recipe = make_recipe(model=model)
    preflight.require_recipe(recipe)
    preflight.download_weights(recipe)
    assert fetched == ["hf:me/net", "hf:me/net"]
