"""What README and CONTRIBUTING tell people to type can be typed: commands, options, make targets, recipes, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from compress.cli.main import commands
from compress.recipe import recipe
from compress.sweep import search as sweep

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def code_lines(name: str) -> Iterator[str]:
    """Give the lines of code of a document, those that are continued as one."""
    text = (ROOT / name).read_text()
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    for block in [*fenced, "\n".join(indented)]:
        yield from (line.strip().removeprefix("- run: ") for line in re.sub(r"\\\n\s*", "", block).splitlines())


COMMANDS = sorted({line.partition("  ")[0].partition(" #")[0] for name in DOCUMENTS for line in code_lines(name)
                   if re.match(r"compress [a-z]+( |$)", line) and "…" not in line})  # fmt: skip


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) > 15
    assert {command.split()[1] for command in COMMANDS} >= {"run", "check", "accept", "sweep", "quantize", "deploy"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken_as_it_is_written(command: str) -> None:
    _, name, *arguments = shlex.split(command.replace("|data|stages|runtimes|recipes|targets", ""))
    arguments = [one for one in arguments if one not in (">",) and not one.endswith(".schema.json")]
    found = commands.commands[name].load()
    while isinstance(found, click.Group):
        found = found.commands[arguments.pop(0)]
    assert found.make_context(name, arguments).command is found


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_help_of_every_command_has_an_example(name: str) -> None:
    command = commands.commands[name].load()
    for one in command.commands.values() if isinstance(command, click.Group) else [command]:
        assert "Example: compress " in (one.help or ""), name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = set(re.findall(r"\bmake ((?:test|bench|run|lint|clean|audit)[a-z0-9-]*)", (ROOT / name).read_text()))
    assert told
    assert told <= targets


def test_recipes_and_sweeps_of_the_readme_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    contents = [yaml.safe_load(block) for block in blocks]
    whole = [content for content in contents if "model" in content]
    sweeps = [content for content in contents if "vary" in content]
    assert (len(whole), len(sweeps)) == (1, 1)
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(whole[0]))
    assert recipe.load(tmp_path / "whole.yaml").gate is not None
    (tmp_path / "try.yaml").write_text(
        yaml.safe_dump({**sweeps[0], "recipe": str(ROOT / "recipes/mobilenet_int8.yaml")})
    )
    assert sweep.load(tmp_path / "try.yaml").count() == 20


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_are_there(name: str) -> None:
    named = re.findall(
        r"`((?:compress|export|runtimes|tests|recipes|\.github)/[\w./-]+\.\w+)`", (ROOT / name).read_text()
    )
    missing = [one for one in named if not (ROOT / one).exists() and "NAME" not in one]
    assert missing == []
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", (ROOT / name).read_text()):
        assert (ROOT / picture).exists()
