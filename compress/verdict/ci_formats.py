"""Format a comparison for CI systems: table, JUnit XML, GitHub annotations and Markdown."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from compress.process.table import Table
from compress.verdict.comparison import TargetComparison
from compress.verdict.gate import Check, Verdict

UNITS = {"max_top1_drop_pp": "percentage points of top-1 lost",
         "class_recall": "percentage points of a class's recall lost",
         "min_agreement": "of all predictions unchanged",
         "max_slowdown": "times the old latency"}  # fmt: skip
LEVELS: dict[Verdict, str] = {"regression": "error", "inconclusive": "warning", "pass": "notice"}


def table(comparisons: tuple[TargetComparison, ...], title: str = "") -> Table:
    """Return a table with one row per target and check."""
    rows = []
    for comparison in comparisons:
        for check in comparison.checks:
            estimate = check.estimate
            numbers = [f"{number:.2f}" for number in (estimate.value, estimate.low, estimate.high)]
            rows.append([comparison.target, check.name, f"{check.limit:g}", *numbers, check.verdict])
    return Table.of(title, "<target|<check|limit|value|low|high|<verdict", rows)


def details(comparisons: tuple[TargetComparison, ...]) -> list[str]:
    """Return what the table does not show, one line each."""
    lines = []
    for comparison in comparisons:
        target, same = comparison.target, f"{100 * comparison.agreement:.1f} %"
        if comparison.top1 is None and not math.isnan(comparison.agreement):
            lines.append(f"{target}: {same} of {comparison.images} predictions unchanged; the images have no labels")
        if comparison.top1 is not None:
            old, new = comparison.top1
            lines.append(
                f"{target}: top-1 {100 * old:.2f} % before, {100 * new:.2f} % now, {comparison.images} images; "
                f"{same} of predictions unchanged; exact McNemar p = {comparison.mcnemar:.2g}"
            )
        for drop in comparison.classes:
            lines.append(f"{target}: class '{drop.name}' collapsed: {drop.lost} of {drop.images} images lost, "
                         f"{drop.gained} gained, p = {drop.probability:.2g} (corrected for the number of classes)"
                         )  # fmt: skip
        lines += [f"{target}: {note}" for note in comparison.notes]
    return lines


def markdown(recipe: str, comparisons: tuple[TargetComparison, ...], verdict: Verdict) -> str:
    """Return a summary for a pull request."""
    lines = [f"### {recipe}: {verdict}", "", *table(comparisons).markdown()]
    return "\n".join([*lines, "", *(f"- {line}" for line in details(comparisons)), ""])


def github(comparisons: tuple[TargetComparison, ...]) -> list[str]:
    """Return GitHub workflow commands, one for each check that did not pass and each note."""
    lines = [
        f"::{LEVELS[check.verdict]} title={comparison.target} {check.name}::{_sentence(check)}"
        for comparison in comparisons
        for check in comparison.checks
        if check.verdict != "pass"
    ]
    return lines + [
        f"::notice title={comparison.target}::{note}" for comparison in comparisons for note in comparison.notes
    ]


def junit(recipe: str, comparisons: tuple[TargetComparison, ...]) -> str:
    """Return JUnit XML with one test case per check; a regression is a failure, an inconclusive check an error."""
    checks = [(comparison, check) for comparison in comparisons for check in comparison.checks]
    count = {verdict: sum(check.verdict == verdict for _, check in checks) for verdict in LEVELS}
    suite = ElementTree.Element(
        "testsuite", name=f"compress check {recipe}", tests=str(len(checks)), failures=str(count["regression"]),
        errors=str(count["inconclusive"]),
    )  # fmt: skip
    for comparison, check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=comparison.target, name=check.name)
        if check.verdict != "pass":
            kind = "failure" if check.verdict == "regression" else "error"
            ElementTree.SubElement(case, kind, message=_sentence(check)).text = "\n".join(details((comparison,)))
    return str(ElementTree.tostring(suite, encoding="unicode", xml_declaration=True))


def _sentence(check: Check) -> str:
    estimate = check.estimate
    return (
        f"{check.verdict}: {estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f}) "
        f"{UNITS[check.name]}, the limit is {check.limit:g}"
    )
