"""Comparing old and new results: accuracy image by image, collapsed classes, latency relative to float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_results import CLASSES, IMAGES, RIGHT, accepted, broken, result, slower

from compress.verdict.accepted import Accepted, Result
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
    assert verdicts(compared) == {"max_drop_pp": "pass", "max_slowdown": "pass"}
    assert (compared.agreement, compared.mcnemar, compared.verdict) == (1.0, 1.0, "pass")


SMALL = 20  # images; without any changed prediction the bound of the drop is 11.9 points


def small(*results: Result, labelled: bool = True) -> Accepted:
    """Return results on a few images."""
    names, labels = ("good", "bad"), tuple(index % 2 if labelled else None for index in range(SMALL))
    return Accepted("solar", names, labels, results, "1")


def of_few(changed: int = 0, **fields: object) -> Result:
    """Return a result whose first predictions on few images are wrong; the file is the same."""
    predicted = tuple(1 - index % 2 if index < changed else index % 2 for index in range(SMALL))
    return replace(result(), **{"predicted": predicted, "sha256": "a" * 64, **fields})


@pytest.mark.parametrize(("labelled", "name"), [(True, "max_drop_pp"), (False, "min_agreement")])
def test_an_identical_file_with_identical_predictions_passes_on_any_number_of_images(labelled: bool, name: str) -> None:
    (same,) = compare(small(of_few(), labelled=labelled), small(of_few(), labelled=labelled), Limits())
    assert (verdicts(same), same.verdict) == ({name: "pass", "max_slowdown": "pass"}, "pass")
    assert same.notes == ("identical file and predictions (sha256 aaaaaaaaaaaa…): nothing is lost",)
    for other in (of_few(sha256="b" * 64), of_few(sha256="")):
        (compared,) = compare(small(of_few(), labelled=labelled), small(other, labelled=labelled), Limits())
        assert verdicts(compared)[name] == "inconclusive"


def test_an_identical_file_with_other_predictions_is_judged_and_named() -> None:
    (compared,) = compare(small(of_few()), small(of_few(changed=1)), Limits())
    assert verdicts(compared)["max_drop_pp"] == "inconclusive"
    assert compared.notes[0] == (
        "the file is identical, but 1 predictions differ: the runtime or the machine changed them"
    )


def test_an_identical_file_on_other_images_is_not_compared() -> None:
    (compared,) = compare(small(of_few()), small(of_few(images="those")), Limits())
    assert verdicts(compared)["max_drop_pp"] == "inconclusive"


def test_a_slowdown_of_an_identical_file_is_judged_and_said_to_be_of_the_machine() -> None:
    (compared,) = compare(small(of_few()), small(of_few(latency_ms=slower(0.7))), Limits())
    assert verdicts(compared) == {"max_drop_pp": "pass", "max_slowdown": "regression"}
    assert compared.notes[-1] == "the file is identical: a slowdown is one of the machine or its load, not of the file"


def test_the_recall_of_an_identical_file_is_judged_all_the_same() -> None:
    limits = Limits(min_recall={"bad": 0.9})
    few = of_few()
    (compared,) = compare(small(few), small(few), limits)
    assert verdicts(compared) == {"max_drop_pp": "pass", "min_recall.bad": "inconclusive", "max_slowdown": "pass"}
    (compared,) = compare(accepted(), accepted(), Limits(min_recall={"class-3": 0.5, "class-4": 0.95}))
    assert (verdicts(compared)["min_recall.class-3"], compared.verdict) == ("pass", "regression")


def test_a_target_that_is_missing_is_a_regression_and_a_new_one_is_named() -> None:
    here, there, new = result(), result(target=Target("there")), result(target=Target("new"))
    compared = compare(accepted(here, there), accepted(here, new), Limits())
    assert [(target.target, target.verdict) for target in compared] == [
        ("there", "regression"), ("here", "pass"), ("new", None)
    ]  # fmt: skip
    assert verdict(compared) == "regression"
    assert verdicts(compared[0]) == {"target_measured": "regression"}
    assert "the accepted result has this target, the new one lacks it" in compared[0].notes[0]
    assert compared[2].notes == ("not compared: the accepted result lacks this target; accept a run that has it",)
    assert verdict(compare(accepted(here), accepted(here, new), Limits())) == "pass"


def test_the_metric_of_imbalanced_data_decides() -> None:
    """Recall of the rare class falls from 1 to 0.5, the mean by half a point."""
    labels = np.repeat([0, 1], [4000, 40])
    after = np.where(np.arange(4040) >= 4020, 0, labels)
    sides = [
        Accepted("solar", ("good", "bad"), tuple(labels.tolist()),
                 (replace(result(), predicted=tuple(predicted.tolist()), sha256=name),), "1")
        for name, predicted in (("a", labels), ("b", after))
    ]  # fmt: skip
    found = {}
    for metric in ("top1", "balanced_accuracy", "macro_f1"):
        (compared,) = compare(*sides, Limits(max_drop_pp=2, metric=metric))  # type: ignore[arg-type]
        found[metric] = verdicts(compared)["max_drop_pp"]
        assert verdicts(compared)["class_recall"] == "regression"
        assert compared.metric == metric
    assert found == {"top1": "pass", "balanced_accuracy": "regression", "macro_f1": "regression"}
    assert compared.metric_values == pytest.approx((1.0, (8000 / 8020 + 2 * 20 / 60) / 2))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(min_recall={"class-33": 0.5}), "min_recall: there is no class 'class-33'; did you mean 'class-3'"),
        (Limits(min_recall={"empty": 0.5}), "min_recall.empty: the class has no test images"),
        (Limits(metric="macro_f1"), "metric: macro_f1 needs test images of every class, .* none of 'empty'"),
    ],
)
def test_limits_on_classes_without_images_are_refused(limits: Limits, message: str) -> None:
    more = accepted(classes=(*accepted().classes, "empty"))
    with pytest.raises(InputError, match=message):
        compare(more, more, limits)
    unknown = accepted(labels=(None,) * IMAGES)
    with pytest.raises(InputError, match="the test images have no labels"):
        compare(unknown, unknown, limits)


def test_a_drop_beyond_the_limit_is_a_regression() -> None:
    compared = judged(result(broken(0.03)))
    assert verdicts(compared)["max_drop_pp"] == compared.verdict == "regression"
    assert compared.mcnemar is not None
    assert compared.mcnemar < 1e-10


def test_a_drop_within_the_noise_is_inconclusive_and_the_note_says_how_many_images_to_use() -> None:
    compared = judged(result(broken(0.008)))
    assert compared.verdict == "inconclusive"
    assert "5000 images are too few to tell the drop from the limit; use about" in compared.notes[0]


def test_a_collapsed_class_is_named_even_if_the_mean_is_within_the_limit() -> None:
    compared = judged(result(broken(0.5, (3,))), Limits(max_drop_pp=6))
    assert verdicts(compared) == {"max_drop_pp": "pass", "class_recall": "regression", "max_slowdown": "pass"}
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
    assert any("the float32 networks differ" in note for note in compared.notes)


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
    assert verdicts(compared)["max_drop_pp"] == compared.verdict == "inconclusive"
    assert "the test images differ" in compared.notes[0]


def test_results_of_other_classes_or_targets_are_refused() -> None:
    with pytest.raises(InputError, match="the classes differ"):
        compare(accepted(), accepted(classes=("a", "b")), Limits())
    with pytest.raises(InputError, match="no target is in both: here and there"):
        compare(accepted(), accepted(result(target=Target("there"))), Limits())


def test_classes_are_compared_in_the_composed_form() -> None:
    old, new = (accepted(classes=("caf\u00e9", "a")), accepted(classes=("cafe\u0301", "a")))
    assert verdict(compare(old, new, Limits())) == "pass"


def test_the_worst_target_is_the_verdict() -> None:
    other = Target("there")
    both = accepted(result(), result(target=other))
    worse = accepted(result(), result(broken(0.05), target=other))
    assert verdict(compare(both, worse, Limits())) == "regression"
    assert verdict(compare(both, both, Limits())) == "pass"
