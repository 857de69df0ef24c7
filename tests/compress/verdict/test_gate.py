"""The gate of a recipe: its limits, and what they judge."""

from __future__ import annotations

import numpy as np
import pytest

from compress.recipe.renamed import RenamedKeyWarning
from compress.verdict.accuracy import Predictions
from compress.verdict.gate import Gate, judge, out_of_reach, refuse_unknown
from compress.verdict.metrics import Metric
from compress.verdict.statistics import Estimate
from runtimes.errors import InputError

LABELS = np.arange(1000) % 2
SPEEDUP = Estimate(1.5, 1.4, 1.6)


def predictions(before: int, after: int) -> Predictions:
    """Return predictions on 1000 images of two classes, the first of which are wrong."""
    sides = [np.where(np.arange(1000) < wrong, 1 - LABELS, LABELS) for wrong in (before, after)]
    return Predictions(sides[0], sides[1], LABELS, ("good", "bad"))


@pytest.mark.parametrize("fields", [{}, {"metric": "macro_f1"}, {"confidence": 0.9}, {"min_recall": {}}])
def test_a_gate_needs_a_limit(fields: dict[str, object]) -> None:
    limits = "max_drop_pp, min_recall, min_agreement, min_accuracy, min_speedup_p50, max_size_ratio"
    with pytest.raises(ValueError, match=f"a gate needs at least one of {limits}"):
        Gate.model_validate(fields)


def test_each_limit_of_the_gate_is_checked() -> None:
    gate = Gate(max_drop_pp=1.5, min_recall={"bad": 0.8}, min_agreement=0.97, min_accuracy=0.88,
                min_speedup_p50=2, max_size_ratio=0.5)  # fmt: skip
    judged = judge(gate, predictions(100, 105), SPEEDUP, 0.25)
    assert [(check.name, check.limit, check.verdict) for check in judged.checks] == [
        ("max_drop_pp", 1.5, "pass"),
        ("min_recall.bad", 0.8, "pass"),
        ("min_agreement", 0.97, "pass"),
        ("min_accuracy", 0.88, "inconclusive"),
        ("min_speedup_p50", 2, "regression"),
        ("max_size_ratio", 0.5, "pass"),
    ]
    checked = {check.name.partition(".")[0] for check in judged.checks}
    assert checked == Gate.model_fields.keys() - {"metric", "confidence"}
    assert judge(Gate(max_size_ratio=0.2), predictions(0, 0), SPEEDUP, 0.25).checks[0].verdict == "regression"


def test_the_old_name_of_the_limit_works_with_a_warning() -> None:
    with pytest.warns(RenamedKeyWarning, match="'max_top1_drop_pp' is now called 'max_drop_pp'"):
        assert Gate.model_validate({"max_top1_drop_pp": 2}) == Gate(max_drop_pp=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_recall": {"bad": 1.2}}, "less than or equal to 1"),
        ({"min_recall": {"bad": 0}}, "greater than 0"),
        ({"min_recall": {1: 0.8}}, "write the class name in quotes; YAML reads it as 1"),
        ({"min_recall": {False: 0.8}}, "write the class name in quotes; YAML reads it as False"),
        ({"metric": "f1"}, "'top1', 'balanced_accuracy' or 'macro_f1'"),
    ],
)
def test_wrong_limits_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gate.model_validate({"max_drop_pp": 1, **fields})


def test_only_recall_needs_no_second_artifact() -> None:
    assert not Gate(min_recall={"bad": 0.8}).compares
    assert Gate(min_recall={"bad": 0.8}, max_size_ratio=1).compares
    alone = Predictions(None, LABELS, LABELS, ("good", "bad"))
    judged = judge(Gate(min_recall={"bad": 0.8}, max_drop_pp=1), alone)
    assert [(check.name, check.verdict) for check in judged.checks] == [("min_recall.bad", "pass")]


@pytest.mark.parametrize("metric", ["top1", "balanced_accuracy"])
def test_the_accuracy_of_the_artifact_is_judged_without_a_baseline(metric: Metric) -> None:
    after = predictions(0, 100).after
    alone = Predictions(None, after, LABELS, ("good", "bad"))
    verdicts = [judge(Gate(metric=metric, min_accuracy=limit), alone).checks[0].verdict for limit in (0.88, 0.9, 0.92)]
    assert verdicts == ["pass", "inconclusive", "regression"]


def test_the_balanced_accuracy_of_a_network_that_finds_one_class_is_no_better_than_chance() -> None:
    labels = np.repeat([0, 1], [950, 50])
    alone = Predictions(None, np.zeros(1000, np.int64), labels, ("good", "bad"))
    assert judge(Gate(min_accuracy=0.6), alone).checks[0].verdict == "pass"
    assert judge(Gate(metric="balanced_accuracy", min_accuracy=0.6), alone).checks[0].verdict == "regression"


def test_a_least_accuracy_needs_labels_a_metric_with_bounds_and_enough_images() -> None:
    with pytest.raises(ValueError, match="min_accuracy: needs metric: top1 or balanced_accuracy"):
        Gate(metric="macro_f1", min_accuracy=0.5)
    with pytest.raises(InputError, match=r"gate\.min_accuracy: the test images have no labels"):
        refuse_unknown(Gate(min_accuracy=0.5), None, ("good", "bad"))
    few = np.asarray([0, 0, 0, 1, 1, 1])
    (line,) = out_of_reach(Gate(min_accuracy=0.9), few, 6, ("good", "bad"))
    assert line.startswith("min_accuracy 0.9: 6 test images can't show it, because with all of them right the bound is")
    assert out_of_reach(Gate(min_accuracy=0.6), few, 6, ("good", "bad")) == []
