"""A comparison as table, lines, Markdown, GitHub annotations and JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from made_results import IMAGES, RIGHT, accepted, broken, result, slower

from compress.process.table import print_table
from compress.verdict import ci_formats
from compress.verdict.accuracy import UNKNOWN_DROP
from compress.verdict.checks import Check
from compress.verdict.comparison import Limits, TargetComparison, compare
from runtimes.target import Target


@pytest.fixture(scope="module")
def worse() -> tuple[TargetComparison, ...]:
    """A target with a collapsed class and a slowdown of 1.2."""
    return compare(accepted(), accepted(result(broken(0.5, (3,)), latency_ms=slower(0.6))), Limits(max_drop_pp=6))


def test_the_table_has_a_row_per_check(worse: tuple[TargetComparison, ...]) -> None:
    table = ci_formats.table(worse, "new against old")
    assert table.title == "new against old"
    assert [(row[0], row[1], row[-1]) for row in table.rows] == [
        ("here", "max_drop_pp", "pass"),
        ("here", "class_recall", "regression"),
        ("here", "max_slowdown", "regression"),
    ]
    assert table.rows[2][2:4] == ("1.1", "1.200")


def test_the_table_fits_80_columns(worse: tuple[TargetComparison, ...], capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ci_formats.table(worse))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_details_give_accuracy_and_collapsed_classes(worse: tuple[TargetComparison, ...]) -> None:
    accuracy, collapsed = ci_formats.details(worse)
    assert accuracy.startswith(f"here: top-1 {100 * worse[0].top1[0]:.2f} % before, ")  # type: ignore[index]
    assert "% of predictions unchanged; exact McNemar p = " in accuracy
    drop = worse[0].classes[0]
    assert collapsed.startswith(f"here: class 'class-3' collapsed: {drop.lost} of 500 images lost, 0 gained, p = ")


def test_details_without_labels_give_the_agreement() -> None:
    labels = {"labels": (None,) * IMAGES}
    changed = np.where(np.arange(IMAGES) < 0.1 * IMAGES, (RIGHT + 1) % 10, RIGHT)
    compared = compare(accepted(**labels), accepted(result(changed), **labels), Limits())
    assert ci_formats.details(compared) == [
        "here: 90.0 % of 5000 predictions unchanged; the images have no labels: neither accuracy nor the recall of "
        "classes is checked"
    ]


def test_markdown_is_a_heading_a_table_and_a_list(worse: tuple[TargetComparison, ...]) -> None:
    lines = ci_formats.markdown("solar", worse, "regression").splitlines()
    assert lines[:4] == ["### solar: regression", "", *ci_formats.table(worse).markdown()[:2]]
    assert lines[-2:] == [f"- {line}" for line in ci_formats.details(worse)]


def test_github_annotates_what_did_not_pass_and_notes() -> None:
    other = result(images="those", target=Target("here", threads=2))
    lines = ci_formats.github(compare(accepted(), accepted(other), Limits()))
    assert [line.partition("::")[2].partition(" ")[0] for line in lines] == ["warning", "notice", "notice"]
    assert lines[0] == (
        "::warning title=here max_drop_pp::inconclusive: change +0.00 (-100.00 to +100.00) "
        "percentage points of top-1, the limit is a drop of 0.5"
    )


def test_the_metric_is_named_with_both_values() -> None:
    limits = Limits(metric="macro_f1", min_recall={"class-3": 0.99})
    compared = compare(accepted(), accepted(result(broken(0.1))), limits)
    assert ci_formats.details(compared)[0].startswith("here: top-1 79.46 % before, 71")
    assert ", macro-F1 79.4" in ci_formats.details(compared)[0]
    lines = ci_formats.github(compared)
    assert "percentage points of macro-F1, the limit is a drop of 0.5" in lines[0]
    (recall,) = [line for line in lines if "min_recall" in line]
    assert recall.startswith("::error title=here min_recall.class-3::regression: 0.7")
    assert recall.endswith(" of the class's images right, the limit is 0.99")


def test_names_of_classes_can_not_end_an_annotation() -> None:
    check = Check("min_recall.a::b,\n5 %", 0.5, UNKNOWN_DROP, "regression")
    (line, note) = ci_formats.github((TargetComparison("here", (check,), "top1", 3, "regression", ("5 %\n::",)),))
    assert line.startswith("::error title=here min_recall.a%3A%3Ab%2C%0A5 %25::regression: ")
    assert note == "::notice title=here::5 %25%0A::"


def test_missing_and_new_targets_are_in_every_format() -> None:
    here, there, new = result(), result(target=Target("there")), result(target=Target("new"))
    compared = compare(accepted(here, there), accepted(here, new), Limits())
    assert ("there", "target_measured", "regression") in [
        (row[0], row[1], row[-1]) for row in ci_formats.table(compared).rows
    ]
    assert "- new: not compared: " in ci_formats.markdown("solar", compared, "regression")
    assert 'classname="there" name="target_measured"' in ci_formats.junit("solar", compared)
    assert any(line.startswith("::error title=there target_measured::") for line in ci_formats.github(compared))


def test_junit_counts_regressions_as_failures_and_inconclusive_checks_as_errors(
    worse: tuple[TargetComparison, ...],
) -> None:
    check = Check("min_agreement", 0.98, UNKNOWN_DROP, "inconclusive")
    unclear = TargetComparison("there", (check,), "top1", 3, "inconclusive")
    suite = ElementTree.fromstring(ci_formats.junit("solar", (*worse, unclear)))
    assert {name: suite.attrib[name] for name in ("name", "tests", "failures", "errors")} == {
        "name": "compress check solar", "tests": "4", "failures": "2", "errors": "1"
    }  # fmt: skip
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["failure"], ["error"]]
    failure = suite[1][0]
    assert failure.attrib["message"].startswith("regression: ")
    assert failure.text == "\n".join(ci_formats.details(worse))
