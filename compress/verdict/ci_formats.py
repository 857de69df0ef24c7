"""Format a comparison for CI systems: table, JUnit XML, GitHub annotations and Markdown."""

from __future__ import annotations

from xml.etree import ElementTree

from compress.process.table import Table, in_markdown
from compress.verdict import checks
from compress.verdict.accuracy import MIN_RECALL
from compress.verdict.checks import DROPS, Check, Verdict
from compress.verdict.comparison import TargetComparison
from compress.verdict.metrics import NAMES, Metric

UNITS = {"class_recall": "percentage points of a class's recall",
         "min_agreement": "of all predictions unchanged",
         "max_slowdown": "times the old latency",
         "target_measured": "results of a target that the accepted result has"}  # fmt: skip
LEVELS: dict[Verdict, str] = {"regression": "error", "inconclusive": "warning", "pass": "notice"}


def table(comparisons: tuple[TargetComparison, ...], title: str = "") -> Table:
    """Return a table with one row per target and check."""
    rows = []
    for comparison in comparisons:
        for check in comparison.checks:
            rows.append([comparison.target, check.name, f"{check.limit:g}", *checks.shown(check), check.verdict])
    return Table.of(title, "<target|<check|limit|value|low|high|<verdict", rows)


def details(comparisons: tuple[TargetComparison, ...]) -> list[str]:
    """Return what the table does not show, one line each."""
    lines = []
    for comparison in comparisons:
        target = comparison.target
        if comparison.agreement is not None:
            lines.append(f"{target}: {_accuracy(comparison, comparison.agreement)}")
        lines += [f"{target}: {drop.line()}" for drop in comparison.classes]
        lines += [f"{target}: {note}" for note in comparison.notes]
    return lines


def _accuracy(comparison: TargetComparison, agreement: float) -> str:
    same = f"{100 * agreement:.1f} %"
    if comparison.top1 is None or comparison.metric_values is None:
        return (f"{same} of {comparison.images} predictions unchanged; the images have no labels: neither accuracy "
                "nor the recall of classes is checked")  # fmt: skip
    values = {"top1": comparison.top1, comparison.metric: comparison.metric_values}
    figures = [f"{NAMES[name]} {100 * old:.2f} % before, {100 * new:.2f} % now" for name, (old, new) in values.items()]
    return (f"{', '.join(figures)}, {comparison.images} images; {same} of predictions unchanged; "
            f"exact McNemar p = {comparison.mcnemar:.2g}")  # fmt: skip


def markdown(recipe: str, comparisons: tuple[TargetComparison, ...], verdict: Verdict) -> str:
    """Return a summary for a pull request."""
    lines = [f"### {recipe}: {verdict}", "", *table(comparisons).markdown()]
    return "\n".join([*lines, "", *(f"- {in_markdown(line)}" for line in details(comparisons)), ""])


def github(comparisons: tuple[TargetComparison, ...]) -> list[str]:
    """Return GitHub workflow commands, one for each check that did not pass and each note."""
    lines = [
        _command(LEVELS[check.verdict], f"{comparison.target} {check.name}", _sentence(check, comparison.metric))
        for comparison in comparisons
        for check in comparison.checks
        if check.verdict != "pass"
    ]
    return lines + [
        _command("notice", comparison.target, note) for comparison in comparisons for note in comparison.notes
    ]


def _command(level: str, title: str, message: str) -> str:
    """Return a workflow command, with the characters escaped that would end it or its title."""
    in_message = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    in_title = (
        title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")
    )
    return f"::{level} title={in_title}::{in_message}"


def junit(recipe: str, comparisons: tuple[TargetComparison, ...]) -> str:
    """Return JUnit XML with one test case per check; a regression is a failure, an inconclusive check an error."""
    cases = [(comparison, check) for comparison in comparisons for check in comparison.checks]
    count = {verdict: sum(check.verdict == verdict for _, check in cases) for verdict in LEVELS}
    suite = ElementTree.Element(
        "testsuite", name=f"compress check {recipe}", tests=str(len(cases)), failures=str(count["regression"]),
        errors=str(count["inconclusive"]),
    )  # fmt: skip
    for comparison, check in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=comparison.target, name=check.name)
        if check.verdict != "pass":
            kind = "failure" if check.verdict == "regression" else "error"
            message = _sentence(check, comparison.metric)
            ElementTree.SubElement(case, kind, message=message).text = "\n".join(details((comparison,)))
    return str(ElementTree.tostring(suite, encoding="unicode", xml_declaration=True))


def _sentence(check: Check, metric: Metric) -> str:
    value, low, high = checks.shown(check)
    if check.name == "max_drop_pp":
        unit = f"percentage points of {NAMES[metric]}"
    else:
        unit = "of the class's images right" if check.name.startswith(MIN_RECALL) else UNITS[check.name]
    limit = f"{'a drop of ' if check.name in DROPS else ''}{check.limit:g}"
    return f"{check.verdict}: {value} ({low} to {high}) {unit}, the limit is {limit}"
