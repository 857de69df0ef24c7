"""What people read of a run: report.html, report.md and the picture, all made of the folder's report.json."""

from __future__ import annotations

from pathlib import Path

from compress.pruning import tables as pruning_tables
from compress.quantization import tables as quantization_tables
from compress.report import charts, report
from compress.report import html as html_report
from compress.report import tables as report_tables
from runtimes.files import write_text
from runtimes.lineage import read_lineage
from runtimes.metrics import confusion_rows

PICTURE = "accuracy_latency.svg"


def write(folder: Path) -> None:
    """Write all documents of a run folder; raises InputError where it has no report that can be read."""
    import jinja2

    content = report.read(folder)
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("compress.report"),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=jinja2.select_autoescape(["html.j2"]),
    )  # fmt: skip
    tables = {
        "tables": report_tables.measured(content),
        "elsewhere": report_tables.elsewhere(content),
        "boards": report_tables.boards(folder),
    }
    page = html_report.page(content, folder)
    text = templates.get_template("report.md.j2").render(
        report=content,
        conditions=[f"{one['name']}: {line}" for one in page["targets"] for line in one["conditions"]],
        quantization=lambda lineage, scheme: quantization_tables.of_lineage(read_lineage(lineage), scheme),
        pruning=pruning_tables,
        confusion_rows=confusion_rows,
        **tables,
    )
    write_text(folder / "report.md", text)
    write_text(folder / PICTURE, charts.standalone(html_report.picture(content, content["rows"])))
    write_text(folder / "report.html", templates.get_template("report.html.j2").render(page, **tables))
