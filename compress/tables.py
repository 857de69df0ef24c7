"""Tables on the terminal, at most 80 columns wide where their reader is no terminal."""

from __future__ import annotations

import sys

LEFT = (
    "artifact",
    "attempt",
    "class",
    "file",
    "kind",
    "layer",
    "most of it",
    "operators",
    "check",
    "split",
    "target",
    "verdict",
    "weights",
)  # columns of words


def print_table(lines: list[list[str]], title: str | None = None) -> None:
    """Print a header and rows of cells."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    header, *rows = lines
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in header:
        table.add_column(column, justify="left" if column in LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, width=None if sys.stdout.isatty() else 80).print(table)
