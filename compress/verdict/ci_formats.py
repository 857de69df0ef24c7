"""What CI systems read of a comparison: tables, JUnit XML, GitHub's annotations and Markdown."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from compress.verdict.comparison import Compared
from compress.verdict.gate import Check, Verdict

UNITS = {"max_top1_drop_pp": "points of top-1 lost", "class_recall": "points of a class's recall lost",
         "min_agreement": "of all answers kept",
         "max_slowdown": "times the latency"}  # fmt: skip
LEVELS: dict[Verdict, str] = {"regression": "error", "inconclusive": "warning", "pass": "notice"}


def table(compared: tuple[Compared, ...]) -> list[list[str]]:
    """Return a header, then a line for each check of each target."""
    lines = [["target", "check", "limit", "value", "low", "high", "verdict"]]
    for one in compared:
        for check in one.checks:
            value = check.estimate
            numbers = [f"{number:.2f}" for number in (value.value, value.low, value.high)]
            lines.append([one.target, check.name, f"{check.limit:g}", *numbers, check.verdict])
    return lines


def details(compared: tuple[Compared, ...]) -> list[str]:
    """Return what the table does not say, a line each."""
    lines = []
    for one in compared:
        if one.top1 is None and not math.isnan(one.agreement):
            lines.append(f"{one.target}: {100 * one.agreement:.1f} % of {one.images} answers the same; no labels")
        if one.top1 is not None:
            old, new = one.top1
            lines.append(f"{one.target}: top-1 {100 * old:.2f} % before, {100 * new:.2f} % now, {one.images} images; "
                         f"{100 * one.agreement:.1f} % of answers the same; exact McNemar p = {one.mcnemar:.2g}"
                         )  # fmt: skip
        for drop in one.classes:
            lines.append(f"{one.target}: class '{drop.name}' collapsed: {drop.lost} of {drop.images} images lost, "
                         f"{drop.won} won, p = {drop.probability:.2g} over all classes")  # fmt: skip
        lines += [f"{one.target}: {note}" for note in one.notes]
    return lines


def markdown(recipe: str, compared: tuple[Compared, ...], verdict: Verdict) -> str:
    """Return a summary for a pull request."""
    header, *rows = table(compared)
    lines = [f"### {recipe}: {verdict}", "", f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {line}" for line in details(compared)), ""])


def github(compared: tuple[Compared, ...]) -> list[str]:
    """Return GitHub's workflow commands, one for each check that did not pass and each note."""
    lines = [
        f"::{LEVELS[check.verdict]} title={one.target} {check.name}::{_sentence(check)}"
        for one in compared
        for check in one.checks
        if check.verdict != "pass"
    ]
    return lines + [f"::notice title={one.target}::{note}" for one in compared for note in one.notes]


def junit(recipe: str, compared: tuple[Compared, ...]) -> str:
    """Return JUnit XML: a test case for each check; inconclusive ones are errors, as nothing was shown."""
    checks = [(one, check) for one in compared for check in one.checks]
    count = {verdict: sum(check.verdict == verdict for _, check in checks) for verdict in LEVELS}
    suite = ElementTree.Element(
        "testsuite", name=f"compress check {recipe}", tests=str(len(checks)), failures=str(count["regression"]),
        errors=str(count["inconclusive"]),
    )  # fmt: skip
    for one, check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=one.target, name=check.name)
        if check.verdict != "pass":
            kind = "failure" if check.verdict == "regression" else "error"
            ElementTree.SubElement(case, kind, message=_sentence(check)).text = "\n".join(details((one,)))
    return str(ElementTree.tostring(suite, encoding="unicode", xml_declaration=True))


def _sentence(check: Check) -> str:
    value = check.estimate
    return (
        f"{check.verdict}: {value.value:.2f} ({value.low:.2f} to {value.high:.2f}) "
        f"{UNITS[check.name]}, the limit is {check.limit:g}"
    )
