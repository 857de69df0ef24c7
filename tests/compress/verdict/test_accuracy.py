"""Judging the accuracy of a network by limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.verdict.accuracy import AccuracyLimits, Judgement, Predictions, judge, out_of_reach, refuse_unknown
from runtimes.errors import InputError

CLASSES = ("good", "bad")


def predictions(images: tuple[int, int], lost: tuple[int, int], labelled: bool = True) -> Predictions:
    """Return predictions of two networks, of which the first is right and the second loses images of each class."""
    labels = np.repeat([0, 1], images)
    first = np.concatenate([np.arange(count) for count in images])
    after = np.where(first < np.asarray(lost)[labels], 1 - labels, labels)
    return Predictions(labels, after, labels if labelled else None, CLASSES)


def judged(images: tuple[int, int], lost: tuple[int, int], labelled: bool = True, **limits: Any) -> Judgement:
    return judge(AccuracyLimits(**limits), predictions(images, lost, labelled))


def verdicts(judgement: Judgement) -> dict[str, str]:
    return {check.name: check.verdict for check in judgement.checks}


def test_a_class_that_is_lost_is_a_regression_although_the_mean_passes() -> None:
    judgement = judged((400, 8), (0, 8), max_drop_pp=4)
    assert verdicts(judgement) == {"max_drop_pp": "pass", "class_recall": "regression"}
    assert [drop.name for drop in judgement.collapsed] == ["bad"]
    recall = judgement.checks[1].estimate
    assert 49 < recall.low < recall.value == 100


def test_a_lost_class_of_few_images_is_inconclusive_and_named() -> None:
    judgement = judged((400, 3), (0, 3), max_drop_pp=4)
    assert verdicts(judgement) == {"max_drop_pp": "pass", "class_recall": "inconclusive"}
    assert judgement.notes[0] == (
        "class 'bad': 3 of 3 images lost, 0 gained; too few to judge, add test images of this class"
    )
    assert judgement.notes[1].startswith("fewer than 5 test images: bad; ")


@pytest.mark.parametrize(
    ("metric", "verdict"), [("top1", "pass"), ("balanced_accuracy", "regression"), ("macro_f1", "regression")]
)
def test_the_metric_decides(metric: str, verdict: str) -> None:
    assert verdicts(judged((2000, 40), (0, 20), max_drop_pp=4, metric=metric))["max_drop_pp"] == verdict


@pytest.mark.parametrize(
    ("lost", "limit", "verdict"), [(0, 0.8, "pass"), (8, 0.8, "inconclusive"), (25, 0.8, "regression")]
)
def test_the_recall_of_a_class_is_judged_by_its_bounds(lost: int, limit: float, verdict: str) -> None:
    judgement = judged((400, 50), (0, lost), min_recall={"bad": limit})
    (check,) = judgement.checks
    assert (check.name, check.verdict) == ("min_recall.bad", verdict)
    assert check.estimate.low < check.estimate.value == 1 - lost / 50
    assert len(judgement.notes) == (verdict == "inconclusive")


def test_recall_is_that_of_the_new_network_alone() -> None:
    given = predictions((400, 50), (0, 25))
    assert given.before is not None
    worse = Predictions(given.before[::-1].copy(), given.after, given.labels, CLASSES)
    limits = AccuracyLimits(min_recall={"bad": 0.8})
    assert judge(limits, worse).checks == judge(limits, given).checks


def test_without_labels_the_drop_is_unknown_and_says_so() -> None:
    judgement = judged((400, 8), (0, 8), labelled=False, max_drop_pp=4, min_agreement=0.9)
    assert verdicts(judgement) == {"max_drop_pp": "inconclusive", "min_agreement": "pass"}
    assert judgement.notes == ("the test images have no labels: neither accuracy nor the recall of classes is checked",)


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"max_drop_pp": 0}, "max_drop_pp 0: on 60 test images only a gain can pass, .*; set a limit above 0"),
        ({"max_drop_pp": 1}, "on 60 test images only a gain can pass, .* the bound is 4.3; use about 259 images or"),
        ({"max_drop_pp": 4.5, "metric": "macro_f1"}, "max_drop_pp 4.5: on 60 test images only a gain can pass"),
        ({"min_agreement": 1.0}, "min_agreement 1: 60 test images can't show it, .* the bound is 0.96"),
        ({"min_recall": {"bad": 0.95}}, "min_recall.bad 0.95: 10 test images can't show it, .* the bound is 0.829"),
    ],
)
def test_limits_that_can_not_be_kept_on_so_few_images_are_named(limits: dict[str, Any], line: str) -> None:
    labels = np.repeat([0, 1], [50, 10])
    (actual,) = out_of_reach(AccuracyLimits(**limits), labels, 60, CLASSES)
    assert_matches(actual, line)
    judgement = judged((50, 10), (0, 0), **limits)
    assert judgement.checks[0].verdict == "inconclusive"
    assert actual in judgement.notes


def test_the_bound_of_an_unchanged_network_is_that_of_its_own_predictions() -> None:
    labels, constant = np.repeat([0, 1], [50, 10]), np.zeros(60, np.int64)  # misses all of the second class
    judgement = judge(
        AccuracyLimits(metric="macro_f1", max_drop_pp=4.5), Predictions(constant, constant, labels, CLASSES)
    )
    assert_matches(judgement.notes[0], f"the bound is {judgement.checks[0].estimate.high:.2g}; use about")


def test_agreement_with_a_reference_that_predicts_one_class_is_named() -> None:
    constant = np.zeros(60, np.int64)
    judgement = judge(AccuracyLimits(min_agreement=0.9), Predictions(constant, constant, None, CLASSES))
    assert judgement.checks[0].verdict == "pass"
    assert_matches(judgement.notes[0], f"the reference predicts '{CLASSES[0]}' for all test images, so that agreement")
    before = np.repeat([0, 1], 30)
    assert judge(AccuracyLimits(min_agreement=0.9), Predictions(before, before, None, CLASSES)).notes == ()


def assert_matches(text: str, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern):
        raise InputError(text)


def test_limits_in_reach_have_no_line() -> None:
    limits = AccuracyLimits(max_drop_pp=5, min_agreement=0.95, min_recall={"bad": 0.8})
    assert out_of_reach(limits, np.repeat([0, 1], [50, 10]), 60, CLASSES) == []
    assert out_of_reach(AccuracyLimits(min_agreement=0.95), None, 60, CLASSES) == []


@pytest.mark.parametrize(
    ("limits", "labels", "message"),
    [
        ({"max_drop_pp": 1}, None, "gate.max_drop_pp: the test images have no labels; give min_agreement instead"),
        ({"min_recall": {"bad": 0.8}}, None, "gate.min_recall: the test images have no labels"),
        ({"metric": "macro_f1"}, None, "gate.metric: the test images have no labels"),
        ({"min_recall": {"bed": 0.8}}, [0, 1], "gate.min_recall: there is no class 'bed'; did you mean 'bad'?"),
        ({"min_recall": {"bad": 0.8}}, [0, 0], "gate.min_recall.bad: the class has no test images"),
        ({"metric": "macro_f1"}, [0, 0], "gate.metric: macro_f1 needs test images of every class, .* none of 'bad'"),
    ],
)
def test_limits_that_need_other_images_are_refused(
    limits: dict[str, Any], labels: list[int] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        refuse_unknown(AccuracyLimits(**limits), None if labels is None else np.asarray(labels), CLASSES, "gate.")


def test_limits_that_fit_are_accepted_and_names_may_be_decomposed() -> None:
    limits = AccuracyLimits(min_recall={"cafe\u0301": 0.8}, metric="balanced_accuracy", max_drop_pp=1)
    refuse_unknown(limits, np.asarray([0, 1]), ("caf\u00e9", "bad"))
    refuse_unknown(AccuracyLimits(min_agreement=0.9), None, CLASSES)
    same = Predictions(None, np.asarray([0, 1]), np.asarray([0, 1]), ("caf\u00e9", "bad"))
    assert [check.name for check in judge(limits, same).checks] == ["min_recall.caf\u00e9"]
