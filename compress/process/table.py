"""Tables of text for the terminal, Markdown and HTML."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

MAX_WIDTH = 80  # if standard output is not a terminal
SPACING = 2  # between columns


@dataclass(frozen=True)
class Column:
    """Heading and alignment of a column."""

    name: str
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Table:
    """A title (empty for none), columns, and rows with one text per column."""

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
        """Return the lines of a Markdown table, without the title; `|` and HTML in texts are escaped."""
        rule = "|".join(" --- " if column.align == "left" else " ---: " for column in self.columns)
        return [
            _markdown_row(column.name for column in self.columns),
            f"|{rule}|",
            *(_markdown_row(row) for row in self.rows),
        ]

    def text(self) -> list[str]:
        """Return the lines of the table as plain text, with the title if there is one."""
        rows = [tuple(column.name for column in self.columns), *self.rows]
        widths = [self._cell_width(index, column.name) for index, column in enumerate(self.columns)]
        lines = [
            (" " * SPACING)
            .join(
                cell.ljust(width) if column.align == "left" else cell.rjust(width)
                for cell, width, column in zip(row, widths, self.columns, strict=True)
            )
            .rstrip()
            for row in rows
        ]
        return [*([self.title] if self.title else []), *lines]

    def width(self) -> int:
        """Return the width of the table in the terminal, in characters."""
        return sum(self._cell_width(index, column.name) for index, column in enumerate(self.columns)) + SPACING * len(
            self.columns
        )

    def narrowed(self) -> Table:
        """Return the table with line breaks in the headings that are wider than their cells."""
        columns = []
        for index, column in enumerate(self.columns):
            is_wider = len(column.name) > self._cell_width(index, "")
            columns.append(replace(column, name=column.name.replace(" ", "\n")) if is_wider else column)
        return replace(self, columns=tuple(columns))

    def _cell_width(self, index: int, heading: str) -> int:
        return max([len(heading), *(len(row[index]) for row in self.rows)])


def in_markdown(text: str) -> str:
    """Return text, such as a file's name, that Markdown shows as it is: without tags of HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(in_markdown(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def print_table(table: Table) -> None:
    """Print a table, at most 80 columns wide if standard output is not a terminal; wide headings take two lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    if table.width() > MAX_WIDTH:
        table = table.narrowed()
    rich_table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns:
        rich_table.add_column(column.name, justify=column.align, no_wrap=True)
    for row in table.rows:
        rich_table.add_row(*row)
    width = None if sys.stdout.isatty() else MAX_WIDTH
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    if table.title:  # not the title of RichTable, which breaks it to the width of the columns
        console.print(table.title, style="italic")
    console.print(rich_table)
