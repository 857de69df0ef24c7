"""All Markdown files, and the commands in them and in the help texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from compress.cli.main import LazyCommand, commands

ROOT = Path(__file__).parents[2]
FOLDERS = ("compress", "export", "runtimes", "recipes", ".github")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")))
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def blocks(document: str, language: str) -> list[str]:
    """Return the fenced blocks in that language."""
    return [block for tag, block in FENCE.findall(text_of(document)) if tag == language]


def command_lines(document: str) -> Iterator[str]:
    """Yield the commands in shell blocks and workflows, without comments; a continued line is one command."""
    for block in [*blocks(document, "shell"), *blocks(document, "yaml")]:
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            command = line.strip().removeprefix("- run: ").partition(" #")[0].strip()
            yield re.sub(r"^(torchrun|\S*python\S*) .*-m compress ", "compress ", command)


def all_commands(group: click.Group = commands, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name, the group itself with an empty one."""
    yield prefix.strip(), group
    for name, entry in group.commands.items():
        command = entry.load() if isinstance(entry, LazyCommand) else entry
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


HELP = sorted({line.strip() for _, command in all_commands()
               for line in re.findall(r"Example: (compress .*)", command.help or "")})  # fmt: skip
IN_DOCUMENTS = {line for name in DOCUMENTS for line in command_lines(name) if re.match("compress [a-z]", line)}
COMMANDS = sorted({*HELP, *IN_DOCUMENTS})
