"""Write report.html, report.md and accuracy_latency.svg of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2

from compress.process.table import Table, in_markdown
from compress.pruning import tables as pruning_tables
from compress.quantization import tables as quantization_tables
from compress.report import charts
from compress.report import page as report_page
from compress.report import tables as report_tables
from compress.report.report import Report
from runtimes.artifact import Manifest
from runtimes.files import write_text
from runtimes.lineage import (
    ExportRecord,
    Float16Record,
    Parity,
    QuantizeRecord,
    SelfContainedRecord,
    VerifyRecord,
    find_record,
)

PICTURE = "accuracy_latency.svg"
EXCLUDED_SHOWN = 50


@dataclass(frozen=True)
class FileParity:
    """The comparison of a file with the one that it was made from."""

    reference: str
    parity: Parity


@dataclass(frozen=True)
class PlanSection:
    """One pruning plan: its step, its summary in one line, and its cuts."""

    step: str
    summary: str
    table: Table


def write(report: Report, folder: Path) -> None:
    """Write all documents of a run into its folder, where they find recipe.yaml, thumbnails and board measurements."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("compress.report"),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=jinja2.select_autoescape(["html.j2"]),
    )  # fmt: skip
    templates.filters["in_markdown"] = in_markdown
    boards = report_tables.boards(report, folder)
    values = {
        "report": report,
        "page": report_page.page(report, folder),
        "boards": boards.tables,
        "board_notes": boards.notes,
        "unmeasured": report_tables.unmeasured(report),
        "plans": list(_plans(report)),
        "tables": report_tables,
        "quantize_record": lambda manifest: find_record(manifest.lineage, QuantizeRecord),
        "quantization": quantization_tables.tables,
        "parities": _parities,
        "set_aside": _set_aside(report),
        "excluded": report.data.set_aside[:EXCLUDED_SHOWN],
        "chart_style": charts.STYLE,
    }
    for name in ("report.md", "report.html"):
        write_text(folder / name, templates.get_template(f"{name}.j2").render(values))
    write_text(folder / PICTURE, charts.standalone(report_page.latency_chart(report, report.rows)))


def _plans(report: Report) -> Iterator[PlanSection]:
    for step, plans in report.pruning.items():
        for plan in plans:
            yield PlanSection(step, pruning_tables.plan_summary(plan), pruning_tables.plan_table(plan))


def _set_aside(report: Report) -> str:
    count = len(report.data.set_aside)
    if not count:
        return "No image was excluded."
    first = f"; the first {EXCLUDED_SHOWN}, report.json has all" if count > EXCLUDED_SHOWN else ""
    return f"{count} image{'s' if count > 1 else ''} excluded{first}:"


def _parities(manifest: Manifest) -> Iterator[FileParity]:
    """Yield the comparisons that were made for a file; that of the export belongs to the float32 file only."""
    for record in manifest.lineage:
        if isinstance(record, ExportRecord) and manifest.precision == "float32":
            yield FileParity("PyTorch", record.parity_with_torch)
        elif isinstance(record, SelfContainedRecord):
            yield FileParity("the file without built-in preprocessing", record.parity_with_plain)
        elif isinstance(record, VerifyRecord):
            yield FileParity("float32", record.parity_with_float32)
        elif isinstance(record, Float16Record):
            yield FileParity("the file before conversion to float16", record.parity_with_given)
