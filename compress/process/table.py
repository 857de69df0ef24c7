"""Tables of text: one type for the terminal, Markdown and HTML."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column's heading and alignment."""

    name: str
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Table:
    """A title, columns, and rows with one text cell per column. title: empty for none."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table '{self.title}': a row has {len(row)} cells, not {len(self.columns)}")

    @classmethod
    def of(cls, title: str, headings: str, rows: Iterable[Iterable[str]]) -> Table:
        """Return a table; headings are separated by `|`, left-aligned ones begin with `<`: "<layer|SQNR dB"."""
        columns = tuple(
            Column(heading.removeprefix("<"), "left" if heading.startswith("<") else "right")
            for heading in headings.split("|")
        )
        return cls(title, columns, tuple(tuple(row) for row in rows))

    def markdown(self) -> list[str]:
        """Return the lines of a Markdown table, without the title."""
        rule = "|".join(" --- " if column.align == "left" else " ---: " for column in self.columns)
        return [
            f"| {' | '.join(column.name for column in self.columns)} |",
            f"|{rule}|",
            *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in self.rows),
        ]


LEFT = (
    "artifact", "attempt", "class", "file", "kind", "layer", "most of it", "operators", "check", "split", "target",
    "verdict", "weights",
)  # fmt: skip


def print_table(table: Table | list[list[str]], title: str | None = None) -> None:
    """Print a table, at most 80 columns wide where standard output is not a terminal."""
    if isinstance(table, list):  # TODO: callers that still build lists
        header, *rows = table
        columns = tuple(Column(name, "left" if name in LEFT else "right") for name in header)
        table = Table(title or "", columns, tuple(tuple(row) for row in rows))
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable(
        title=table.title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for column in table.columns:
        shown.add_column(column.name, justify=column.align, no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    Console(highlight=False, width=None if sys.stdout.isatty() else 80).print(shown)
