from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.images.samples import Data, LeftOut, Sample
from compress.pipeline import checks as module
from compress.pipeline.checks import load_data, unavailable_targets
from compress.pipeline.steps import Steps
from compress.recipe.recipe import Recipe
from runtimes import environment
from runtimes.errors import InputError, UnavailableError

PRUNE = {"stage": "prune", "latency": 0.5}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets named `board` are another machine."""
    monkeypatch.setattr(
        environment, "why_not_here", lambda target: "it is arm64" if target.name.startswith("board") else None
    )


@pytest.fixture
def use_data(monkeypatch: pytest.MonkeyPatch) -> Callable[[Data], None]:
    """Give a function that makes a data set the recipe's."""

    def use(data: Data) -> None:
        monkeypatch.setattr(module.named_data, "load_config", lambda config: data)

    return use


@pytest.mark.usefixtures("elsewhere")
def test_a_target_elsewhere_is_named_with_its_reason(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(targets=[{"name": "here"}, {"name": "board"}])
    assert unavailable_targets(recipe) == {"here": None, "board": "it is arm64"}


@pytest.mark.usefixtures("elsewhere")
def test_no_target_here_is_an_error_that_lists_all(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(UnavailableError, match=r"target 'board-1': it is arm64; target 'board-2': it is arm64$"):
        unavailable_targets(make_recipe(targets=[{"name": "board-1"}, {"name": "board-2"}]))


@pytest.mark.usefixtures("elsewhere")
def test_a_stage_that_measures_elsewhere_is_an_error_with_its_cure(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(stages=[{**PRUNE, "target": "board"}], targets=[{"name": "here"}, {"name": "board"}])
    with pytest.raises(UnavailableError, match=r"^stages.0: target 'board' .*; name another target, or give macs"):
        unavailable_targets(recipe)


def test_litert_is_converted_and_measured_by_other_commands(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(InputError, match=r"python -m export.to_litert .* compress measure FILE --runtime litert"):
        unavailable_targets(make_recipe(targets=[{"name": "phone", "runtime": "litert"}]))


def test_a_missing_runtime_names_its_package(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "package_versions", lambda names=(): {})
    with pytest.raises(UnavailableError, match=r"target 'here': its runtime needs a package: pip install onnxruntime"):
        unavailable_targets(make_recipe(targets=[{"name": "here"}]))


def test_unreadable_images_are_left_out_named_and_looked_up_once(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], use_data: Callable[[Data], None], stripes: Data
) -> None:
    broken = replace(stripes, train=(*stripes.train, Sample("a/broken.png", b"no image", 0)))
    use_data(broken)
    recipe = make_recipe(max_unreadable_images=0.1)
    steps = new_steps()
    kept = load_data(recipe, steps)
    assert kept.data.train == stripes.train
    assert [image.name for image in kept.data.rejected] == ["a/broken.png"]
    assert kept.fingerprint == kept.data.fingerprint() != broken.fingerprint()
    assert any(line.startswith("set aside: a/broken.png: ") for line in steps.console.said)  # type: ignore[attr-defined]
    again = new_steps()
    assert load_data(recipe, again) == kept
    assert again.console.said == []  # type: ignore[attr-defined]


def test_what_is_left_out_is_said(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], use_data: Callable[[Data], None], stripes: Data
) -> None:
    absent = tuple(sample for sample in stripes.val if sample.label)
    left_out = (LeftOut("extension .heic", 2, "train/a/1.heic"),)
    use_data(replace(stripes, val=absent, left_out=left_out, folders={"val": "/data/Valid"}))
    steps = new_steps()
    load_data(make_recipe(), steps)
    assert steps.console.said == [  # type: ignore[attr-defined]
        "val: /data/Valid",
        "left out: 2 files: extension .heic, for example train/a/1.heic",
        f"val: no images of 1 of 3 classes: {stripes.classes[0]}",
    ]


@pytest.mark.parametrize(
    ("missing", "sections", "message"),
    [
        ({"test": ()}, {}, "no test split to measure on; give data.test or data.root"),
        ({"val": ()}, {"stages": [{"stage": "train"}]}, "the stages need the splits train and val"),
    ],
)
def test_a_missing_split_is_an_error_with_its_cure(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], use_data: Callable[[Data], None], stripes: Data,
    missing: dict[str, Any], sections: dict[str, Any], message: str,
) -> None:  # fmt: skip
    use_data(replace(stripes, **missing))
    with pytest.raises(InputError, match=message):
        load_data(make_recipe(**sections), new_steps())


def test_a_limit_on_accuracy_needs_labels(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], use_data: Callable[[Data], None], stripes: Data
) -> None:
    use_data(replace(stripes, test=tuple(replace(sample, label=None) for sample in stripes.test)))
    recipe = make_recipe(gate={"max_drop_pp": 1})
    with pytest.raises(InputError, match="the test images have no labels; give min_agreement instead"):
        load_data(recipe, new_steps())


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"min_recall": {"diag": 0.8}}, "gate.min_recall: there is no class 'diag'; did you mean 'diagonal'"),
        ({"metric": "macro_f1", "max_drop_pp": 1}, "gate.metric: macro_f1 needs test images of every class"),
        ({"min_recall": {"empty": 0.8}}, "gate.min_recall.empty: the class has no test images"),
    ],
)
def test_limits_on_classes_need_test_images_of_them(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], use_data: Callable[[Data], None], stripes: Data,
    gate: dict[str, Any], message: str,
) -> None:  # fmt: skip
    use_data(replace(stripes, classes=("diagonal", *stripes.classes[1:], "empty")))
    steps = new_steps()
    with pytest.raises(InputError, match=message):
        load_data(make_recipe(gate=gate, quantize={}), steps)
    assert steps.folders == {}  # before any work


def test_a_limit_that_so_few_images_can_not_show_to_be_kept_is_said_before_any_work(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], use_data: Callable[[Data], None], stripes: Data
) -> None:
    use_data(stripes)
    steps = new_steps()
    load_data(make_recipe(gate={"min_agreement": 1.0, "max_drop_pp": 99}, quantize={}), steps)
    said = steps.console.said  # type: ignore[attr-defined]
    assert [line for line in said if line.startswith("gate.")] == [
        f"gate.min_agreement 1: {len(stripes.test)} test images can't show it, because without any changed prediction "
        "the bound is 0.8817; use more test images or a lower limit"
    ]


def test_a_stage_free_recipe_needs_no_training_split(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], use_data: Callable[[Data], None], stripes: Data,
    tmp_path: Path,
) -> None:  # fmt: skip
    use_data(replace(stripes, train=(), val=()))
    assert load_data(make_recipe(), new_steps()).data.test == stripes.test
