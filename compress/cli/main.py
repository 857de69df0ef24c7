"""The command group: imports the module of a command only when that command runs, and turns errors into exit codes."""

from __future__ import annotations

import errno
import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import rich_click as click

from compress import __version__
from compress.recipe.renamed import RenamedKeyWarning
from runtimes.console import escape_unprintable
from runtimes.errors import CompressError

EXIT_CODES_HELP = "Exit codes: 0 pass, 1 the tool failed, 2 bad usage or recipe, 3 regression, 4 inconclusive."

# Groups of the list of commands, in its order: (module in compress.cli, name, line). A test compares the lines with the
# first lines of the commands' own help.
GROUPS = {
    "Make a network small and fast": (
        ("run", "run", "Train, compress, export, measure and judge as a recipe says."),
        ("quantize", "quantize", "Quantize a float32 ONNX network to INT8."),
        ("sweep", "sweep", "Run a recipe with many settings and find the Pareto front."),
    ),
    "Write recipes": (
        ("init", "init", "Inspect a folder of images and write a recipe for it."),
        ("recipes", "list", "List what a recipe can name, one line each."),
        ("recipes", "explain", "Explain a key or section of recipes, or list the sections."),
        ("recipes", "validate", "Check a recipe and report all its problems at once."),
        ("recipes", "schema", "Print the JSON Schema of recipes, for editors."),
    ),
    "Judge results": (
        ("report", "report", "Rebuild the report of a run and print its tables."),
        ("check", "accept", "Save the results of a run as the reference for later checks."),
        ("check", "check", "Check a run for lost accuracy or speed."),
        ("check", "compare", "Compare runs or accepted files with the first of them."),
    ),
    "Measure and deploy": (
        ("measure", "measure", "Measure artifacts on this machine."),
        ("measure", "evaluate", "Evaluate the accuracy of artifacts on a data set."),
        ("boards", "bundle", "Pack an artifact and the program that runs it into one tar."),
        ("boards", "deploy", "Copy a bundle to a board over SSH and measure it there."),
    ),
    "Examine images and machines": (
        ("data", "data", "Check data sets and copy them into shards."),
        ("doctor", "doctor", "Show what this machine can run and what is missing."),
    ),
}
COMMANDS = tuple(command for group in GROUPS.values() for command in group)

PILLOW = "PIL"  # folder of the package
OS_ERROR_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space or "),
    **dict.fromkeys((errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG), ""),
}  # other OSErrors are faults of the toolkit and keep their traceback


class LazyCommand(click.RichCommand):
    """Entry in the list of commands; `load` imports the command itself."""

    def __init__(self, module: str, name: str, help_line: str) -> None:
        super().__init__(name=name, help=help_line, short_help=help_line)
        self.module = module

    def load(self) -> click.Command:
        """Import the module of the command and return the command."""
        module = importlib.import_module(f"compress.cli.{self.module}")
        return next(
            value for value in vars(module).values() if isinstance(value, click.Command) and value.name == self.name
        )


class LazyGroup(click.RichGroup):
    """Group of lazy commands; toolkit errors end in one line per problem and the error's exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the name, the imported command and the remaining arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def invoke(self, ctx: click.Context) -> Any:  # Any: the return value of the command
        """Run the command; exit with one line per problem on an error of the toolkit or of the file system."""
        try:
            with _renamed_keys_shown():
                return super().invoke(ctx)
        except CompressError as error:
            _fail(str(error), error.exit_code)
        except OSError as error:
            if error.errno not in OS_ERROR_ADVICE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            advice = f"{OS_ERROR_ADVICE[error.errno]}choose another folder with --out and run it again"
            _fail(f"{where}{error.strerror}; {advice}", 1)


@contextmanager
def _renamed_keys_shown() -> Iterator[None]:
    """Print warnings about renamed keys of recipes as one line, and none of Pillow.

    Python hides the former or prints source code with them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", RenamedKeyWarning)
        show_other = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, RenamedKeyWarning):
                click.echo(f"compress: warning: {message}", err=True)
            elif Path(filename).parent.name != PILLOW:  # about single images, without their names
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _fail(message: str, code: int) -> None:
    for line in message.splitlines():
        click.echo(f"compress: {line}", err=True)
    sys.exit(code)


def _grouped(group: click.RichGroup) -> click.RichGroup:
    """Add a panel for each of `GROUPS` to the help."""
    for title, entries in GROUPS.items():
        group.add_panel(click.RichCommandPanel(title, commands=[name for _, name, _ in entries]))
    return group


@_grouped
@click.group(
    cls=LazyGroup,
    commands=[LazyCommand(*entry) for entry in COMMANDS],
    epilog=EXIT_CODES_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="compress")
def commands() -> None:
    """Make image classifiers small and fast for edge devices, and verify the result.

    Completion of commands, options and recipes, in ~/.bashrc: eval "$(_COMPRESS_COMPLETE=bash_source compress)"; the
    same with zsh_source in ~/.zshrc. For fish: _COMPRESS_COMPLETE=fish_source compress | source

    Example: compress run mobilenet_int8
    """


def main() -> None:
    """Run the command line and exit."""
    escape_unprintable()
    commands(prog_name="compress")
