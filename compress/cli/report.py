"""The command `compress report`, and the tables that other commands print of a run."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from compress.process.table import print_table
from compress.report import documents, report, tables
from compress.verdict import checks


@click.command("report")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def report_command(run_folder: Path) -> None:
    """Rebuild the report of a run and print its tables.

    report.html and report.md are written from the run's report.json.

    Example: compress report runs/mobilenet_int8
    """
    content = report.read(run_folder)
    documents.write(content, run_folder)
    print_report(content, run_folder)


def print_report(content: report.Report, folder: Path) -> None:
    """Print the tables, the checks and the verdict of the run in `folder`."""
    boards = tables.boards(content, folder)
    for table in (*tables.measured(content), *boards.tables, *tables.unmeasured(content)):
        print_table(table)
    for note in (*boards.notes, *content.data_notes(), *content.notes):
        click.echo(note)
    for row in content.rows:
        for note in row.notes:
            click.echo(f"{row.target}: {note}")
        for check in row.checks:
            value, low, high = checks.shown(check)
            click.echo(f"{row.target}: {tables.limit_name(content, check)} {check.limit:g}: {value} ({low} to {high}): "
                       f"{check.verdict}")  # fmt: skip
    click.echo(f"verdict: {content.verdict or 'none, the recipe has no gate'}")
    click.echo(f"report: {folder / 'report.html'}")
