"""Comparing old and new results: accuracy image by image, collapsed classes, latency relative to float32."""

from __future__ import annotations

import numpy as np
import pytest
from made_results import CLASSES, IMAGES, RIGHT, accepted, broken, result, slower

from compress.verdict.accepted import Result
from compress.verdict.comparison import Limits, TargetComparison, compare, verdict
from runtimes.errors import InputError
from runtimes.target import Target


def judged(new: Result, limits: Limits = Limits()) -> TargetComparison:  # noqa: B008
    (compared,) = compare(accepted(), accepted(new), limits)
    return compared


def verdicts(compared: TargetComparison) -> dict[str, str]:
    return {check.name: check.verdict for check in compared.checks}


def test_the_same_predictions_and_latencies_pass() -> None:
    compared = judged(result())
    assert verdicts(compared) == {"max_top1_drop_pp": "pass", "max_slowdown": "pass"}
    assert (compared.agreement, compared.mcnemar, compared.notes, compared.verdict) == (1.0, 1.0, (), "pass")


def test_a_drop_beyond_the_limit_is_a_regression() -> None:
    compared = judged(result(broken(0.03)))
    assert verdicts(compared)["max_top1_drop_pp"] == compared.verdict == "regression"
    assert compared.mcnemar is not None
    assert compared.mcnemar < 1e-10


def test_a_drop_within_the_noise_is_inconclusive_and_the_note_says_how_many_images_to_use() -> None:
    compared = judged(result(broken(0.008)))
    assert compared.verdict == "inconclusive"
    assert "5000 images are too few to tell the drop from the limit; use about" in compared.notes[0]


def test_a_collapsed_class_is_named_even_if_the_mean_is_within_the_limit() -> None:
    compared = judged(result(broken(0.5, (3,))), Limits(max_top1_drop_pp=6))
    assert verdicts(compared) == {"max_top1_drop_pp": "pass", "class_recall": "regression", "max_slowdown": "pass"}
    assert [drop.name for drop in compared.classes] == ["class-3"]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, "pass"), (0.01, "pass"), (0.02, "inconclusive"), (0.1, "regression")]
)
def test_without_labels_agreement_is_judged(share: float, expected: str) -> None:
    unknown = {"labels": (None,) * IMAGES}
    changed = np.where(np.arange(IMAGES) < share * IMAGES, (RIGHT + 1) % CLASSES, RIGHT)
    (compared,) = compare(accepted(**unknown), accepted(result(changed), **unknown), Limits(min_agreement=0.98))
    assert verdicts(compared) == {"min_agreement": expected, "max_slowdown": "pass"}
    assert (compared.top1, compared.mcnemar, compared.classes) == (None, None, ())
    assert compared.agreement == pytest.approx(1 - share)


def test_an_implausible_gain_has_a_note() -> None:
    (compared,) = compare(accepted(result(broken(0.05))), accepted(), Limits())
    assert compared.verdict == "pass"
    assert "implausible: top-1 rose by" in compared.notes[0]


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, "pass"), (1.06, "pass"), (1.1, "inconclusive"), (1.2, "regression")]
)
def test_a_slowdown_is_judged(factor: float, expected: str) -> None:
    assert verdicts(judged(result(latency_ms=slower(0.5 * factor))))["max_slowdown"] == expected


def test_a_machine_wide_slowdown_is_no_regression() -> None:
    compared = judged(result(latency_ms=slower(0.9), reference_ms=slower(1.8)))
    assert verdicts(compared)["max_slowdown"] == "pass"


def test_a_slower_float32_network_does_not_hide_a_slowdown() -> None:
    compared = judged(result(latency_ms=slower(0.9), reference_ms=slower(1.8), reference_bytes=8))
    assert verdicts(compared)["max_slowdown"] == "regression"
    assert "the float32 networks differ" in compared.notes[-1]


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"environment": {"cpu": "that"}}, "environment.cpu this and that"),
        ({"target": Target("here", threads=2)}, "target.threads 1 and 2"),
    ],
)
def test_latency_on_another_machine_is_not_compared(fields: dict[str, object], note: str) -> None:
    compared = judged(result(**fields, latency_ms=slower(9)))
    assert "max_slowdown" not in verdicts(compared)
    assert note in compared.notes[-1]
    assert compared.verdict == "pass"


def test_accuracy_on_other_images_is_inconclusive() -> None:
    compared = judged(result(images="those"))
    assert verdicts(compared)["max_top1_drop_pp"] == compared.verdict == "inconclusive"
    assert "the test images differ" in compared.notes[0]


def test_results_of_other_classes_or_targets_are_refused() -> None:
    with pytest.raises(InputError, match="the classes differ"):
        compare(accepted(), accepted(classes=("a", "b")), Limits())
    with pytest.raises(InputError, match="no target is in both: here and there"):
        compare(accepted(), accepted(result(target=Target("there"))), Limits())


def test_the_worst_target_is_the_verdict() -> None:
    other = Target("there")
    both = accepted(result(), result(target=other))
    worse = accepted(result(), result(broken(0.05), target=other))
    assert verdict(compare(both, worse, Limits())) == "regression"
    assert verdict(compare(both, both, Limits())) == "pass"
