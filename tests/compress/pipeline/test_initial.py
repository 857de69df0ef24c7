"""Tests of the checks of initial networks: nothing random teaches or is exported in place of weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from compress.pipeline import initial
from compress.recipe.recipe import Recipe
from runtimes.errors import InputError

TRAIN, QAT, PRUNE, DISTILL = ({"stage": name} for name in ("train", "qat", "prune", "distill"))
PRUNE = {**PRUNE, "macs": 0.5}
LOADED = {"arch": "resnet", "weights": "net.pth"}
HEAD = ("fc",)
FINE_TUNE = {**PRUNE, "fine_tune": {"epochs": 4}}
MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize(
    "stages",
    [
        [TRAIN],
        [{**QAT, "teacher": None}],
        [TRAIN, PRUNE, DISTILL, QAT],
        [{**TRAIN, "freeze": ["layer*"]}],
        [{**TRAIN, "freeze": ["fc"]}, TRAIN],
        [{**DISTILL, "teacher": {"network": {"arch": "resnet", "weights": "other.pth"}}}],
    ],
)
def test_a_replaced_classifier_is_accepted_where_a_stage_trains_it(
    make_recipe: MakeRecipe, stages: list[dict[str, Any]]
) -> None:
    assert initial.untrained_notes(make_recipe(model=LOADED, stages=stages), HEAD) == []


@pytest.mark.parametrize("stages", [[FINE_TUNE], [PRUNE, TRAIN]])
def test_a_random_baseline_is_noted_and_refused_by_a_gate_that_compares_with_it(
    make_recipe: MakeRecipe, stages: list[dict[str, Any]]
) -> None:
    note = "has a random classifier (fc): its accuracy and the change from it mean nothing"
    assert note in initial.untrained_notes(make_recipe(model=LOADED, stages=stages), HEAD)[0]
    assert "has random weights: its accuracy" in initial.untrained_notes(make_recipe(stages=stages), ("*",))[0]
    for gate in ({"max_drop_pp": 3}, {"min_agreement": 0.9}):
        with pytest.raises(InputError, match=r"^gate: the baseline, .*, has a random classifier \(fc\)"):
            initial.untrained_notes(make_recipe(model=LOADED, stages=stages, gate=gate), HEAD)
    size = make_recipe(model=LOADED, stages=stages, gate={"max_size_ratio": 0.9})
    assert note in initial.untrained_notes(size, HEAD)[0]


@pytest.mark.parametrize(
    "stages", [[], [PRUNE], [{**TRAIN, "freeze": ["fc"]}], [{**TRAIN, "freeze": ["f*", "layer1"]}]]
)
def test_a_replaced_classifier_is_refused_where_none_trains_it(
    make_recipe: MakeRecipe, stages: list[dict[str, Any]]
) -> None:
    with pytest.raises(InputError, match=r"^model\.weights: net\.pth: belong to other classes, and no stage trains"):
        initial.untrained_notes(make_recipe(model=LOADED, stages=stages), HEAD)
    assert initial.untrained_notes(make_recipe(model=LOADED, stages=stages), ()) == []


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([DISTILL], "stages.0.teacher: the network 'baseline' has"),
        ([QAT], "stages.0.teacher: the network 'before' has"),
        ([PRUNE, TRAIN, DISTILL], "stages.2.teacher: the network 'baseline' has"),
        ([{**PRUNE, "fine_tune": {"epochs": 4, "teacher": {}}}], "stages.0.fine_tune.teacher: the network 'baseline'"),
        ([{**TRAIN, "freeze": ["fc"]}, QAT], "stages.1.teacher: the network 'before' has a random classifier"),
    ],
)
def test_a_random_teacher_is_refused(make_recipe: MakeRecipe, stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        initial.untrained_notes(make_recipe(model=LOADED, stages=stages), HEAD)


def test_a_random_network_teaches_nothing_and_is_noted_where_no_stage_trains_it(make_recipe: MakeRecipe) -> None:
    with pytest.raises(InputError, match="the network 'baseline' has random weights there and would teach nothing"):
        initial.untrained_notes(make_recipe(stages=[DISTILL]), ("*",))
    assert initial.untrained_notes(make_recipe(stages=[TRAIN, DISTILL]), ("*",)) == []
    assert initial.untrained_notes(make_recipe(stages=[PRUNE]), ("*",)) == [
        "model: random weights, and no stage trains them: accuracy and agreement mean nothing, latency does"
    ]


def test_teachers_of_all_trainings_are_found_once(make_recipe: MakeRecipe) -> None:
    own = {"network": {"arch": "resnet", "weights": "a.pth"}}
    other = {"network": {"arch": "resnet", "weights": "b.pth"}}
    stages = [TRAIN, {**DISTILL, "teacher": own}, {**PRUNE, "fine_tune": {"epochs": 4, "teacher": other}},
              {**DISTILL, "teacher": deepcopy(own)}]  # fmt: skip
    sections = initial.own_teachers(make_recipe(stages=stages).stages)
    assert [section.weights for section in sections] == ["a.pth", "b.pth"]


def test_a_teacher_with_a_random_classifier_is_refused(make_recipe: MakeRecipe) -> None:
    section = make_recipe(model=LOADED).model
    initial.require_trained_teacher(section, ())
    with pytest.raises(InputError, match=r"teacher: weights: net\.pth: .* classifier \(fc\) would be random"):
        initial.require_trained_teacher(section, HEAD)
