"""Parameters that several commands have: shipped files by name, and --quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import rich_click as click
from click.shell_completion import CompletionItem

from compress.recipe import shipped

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress; errors and results are printed.")


code_option = click.option(
    "--code", metavar="FILE.py", multiple=True, type=click.Path(path_type=Path),
    help="Run this file, whose networks the recipe names as arch: FILE:FUNCTION; repeatable.",
)  # fmt: skip


class ShippedFile(click.ParamType[Path]):
    """A path, or the name of a shipped file; shells complete both."""

    name = "file"

    def __init__(self, known: Callable[[], dict[str, Path]]) -> None:
        """known: returns the shipped files by name."""
        self._known = known

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path of the file; raises InputError if only a similar name is known."""
        return shipped.find(value, self._known())

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the shipped names that fit, else let the shell complete files."""
        names = [CompletionItem(name) for name in self._known() if name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="file")]
