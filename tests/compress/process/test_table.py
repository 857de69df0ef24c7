"""Tables of text in the terminal and in Markdown."""

from __future__ import annotations

import pytest

from compress.process.table import MAX_WIDTH, Column, Table, print_table

TABLE = Table.of("sizes", "<layer|SQNR dB", [("stem", "31.5"), ("a|b", "9.0")])


def test_headings_say_their_alignment() -> None:
    assert TABLE.columns == (Column("layer", "left"), Column("SQNR dB", "right"))
    assert TABLE.rows == (("stem", "31.5"), ("a|b", "9.0"))


def test_a_row_needs_a_cell_per_column() -> None:
    with pytest.raises(ValueError, match="table 'sizes': a row has 1 cells, not 2"):
        Table.of("sizes", "<layer|SQNR dB", [("stem",)])


def test_markdown_aligns_columns_and_escapes_bars() -> None:
    assert TABLE.markdown() == [
        "| layer | SQNR dB |",
        "| --- | ---: |",
        "| stem | 31.5 |",
        r"| a\|b | 9.0 |",
    ]
    assert Table("", (Column("a|b"),), ()).markdown()[0] == r"| a\|b |"


def test_markdown_shows_names_with_tags_as_they_are() -> None:
    assert Table.of("", "<class", [("<b>R&D",)]).markdown()[-1] == "| &lt;b>R&amp;D |"


def test_the_terminal_shows_title_headings_and_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TABLE)
    title, _, headings, rule, *rows = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert title == "sizes"
    assert headings.split() == ["layer", "SQNR", "dB"]
    assert set(rule.strip()) == {"─"}
    assert rows[:2] == [" stem      31.5", " a|b        9.0"]


def test_a_title_is_not_broken_to_the_width_of_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    title = "train: classes with the fewest images"
    print_table(Table.of(title, "<class|images", [("a", "1")]))
    assert capsys.readouterr().out.splitlines()[0] == title


@pytest.mark.parametrize("cell", [10, 16, 20])
def test_the_width_is_that_of_the_printed_lines(capsys: pytest.CaptureFixture[str], cell: int) -> None:
    table = Table.of("", "<name|one|two", [("x" * cell, "1", "2")])
    print_table(table)
    assert max(map(len, capsys.readouterr().out.splitlines())) == table.width()


def test_headings_take_two_lines_only_if_the_table_is_too_wide(capsys: pytest.CaptureFixture[str]) -> None:
    headings = "<name|" + "|".join(f"wide heading {index}" for index in range(5))
    print_table(Table.of("", headings, [("x", *"12345")]))
    lines = capsys.readouterr().out.splitlines()
    lines = lines[next(index for index, line in enumerate(lines) if line.strip()) :]
    assert max(map(len, lines)) <= MAX_WIDTH
    assert "…" not in "".join(lines)
    assert [line.split() for line in lines[:3]] == [["wide"] * 5, ["heading"] * 5, ["name", *"01234"]]
    print_table(Table.of("", "wide heading", [("1",)]))
    assert "wide heading" in capsys.readouterr().out


def test_a_heading_as_wide_as_its_cells_is_not_broken() -> None:
    narrow = Table.of("", "two words|two words", [("1", "123456789")]).narrowed()
    assert [column.name for column in narrow.columns] == ["two\nwords", "two words"]


def test_names_in_brackets_and_colons_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Table.of("[bold]title", "<name", [("[red] and green",), (":smile:",)]))
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("[bold]title", "[red]", ":smile:"))


def test_plain_text_is_aligned_without_trailing_spaces() -> None:
    table = Table.of("sizes", "<file|MB", [("a.onnx", "10.25"), ("long.onnx", "3")])
    assert table.text() == ["sizes", "file          MB", "a.onnx     10.25", "long.onnx      3"]
    assert Table.of("", "<name", []).text() == ["name"]
