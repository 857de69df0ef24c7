"""Documentation: commands, options, recipes, make targets, files and links in all Markdown files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from documents import COMMANDS, DOCUMENTS, FENCE, ROOT, all_commands, blocks, text_of

from compress.boards import inventory
from compress.boards.inventory import Board
from compress.cli import outputs
from compress.cli.main import LazyCommand, commands
from compress.recipe import plugins, recipe, shipped
from compress.recipe.recipe import Recipe
from compress.sweep import search as sweep
from compress.sweep.config import Range, Sweep

LANGUAGES = {"shell", "yaml", "text", "python", "toml"}
PLACEHOLDERS = {
    "RECIPE",
    "recipes/solar.yaml",
    "flowers.yaml",
    "recipe.yaml",
    "my_net.yaml",
    "acme.yaml",
}  # the reader's


def yaml_blocks() -> Iterator[tuple[str, Any]]:
    for document in DOCUMENTS:
        for block in blocks(document, "yaml"):
            if block.split("\n")[0].removeprefix("# ") not in PLACEHOLDERS:  # those run in test_own_networks.py
                yield document, yaml.safe_load(block)


INLINE = sorted({code for name in DOCUMENTS for code in re.findall(r"`(compress [a-z][^`\n]*)`", text_of(name))})
RUNS = [line for line in COMMANDS if line.startswith(("compress run", "compress validate"))]


def command_named(names: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that the words name, and the remaining words."""
    command, rest = commands.commands[names[0]], names[1:]
    command = command.load() if isinstance(command, LazyCommand) else command
    while isinstance(command, click.Group) and rest:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def test_documents_and_commands_are_found() -> None:
    assert len(DOCUMENTS) >= 18
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "recipes/README.md", "runtimes/README.md"} <= set(DOCUMENTS)
    assert len(COMMANDS) > 30
    assert {line.split()[1] for line in COMMANDS} >= set(commands.commands) - {"data"}
    assert len(RUNS) > 10
    assert len(INLINE) > 15


def test_the_front_page_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_of_code_are_fenced_and_name_a_language(document: str) -> None:
    assert {tag for tag, _ in FENCE.findall(text_of(document))} <= LANGUAGES
    outside = FENCE.sub("", text_of(document))
    assert "```" not in outside
    assert not re.search(r"\n\n    \S", outside), "indented block of code"


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_parses(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "require_writable", lambda path, option: None)  # the reader's folders
    words = [word for word in shlex.split(line)[1:] if word != ">" and not word.endswith(".schema.json")]
    command, arguments = command_named(words)
    assert command.make_context(words[0], arguments).command is command


@pytest.mark.parametrize("code", INLINE)
def test_a_command_in_the_text_exists_with_its_options(code: str) -> None:
    command, words = command_named(shlex.split(code.replace("…", ""))[1:])
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize("line", RUNS)
def test_a_recipe_with_its_overrides_is_valid(line: str) -> None:
    words = shlex.split(line)
    if words[2] not in PLACEHOLDERS:
        overrides = [value for option, value in pairwise(words) if option == "--set"]
        assert recipe.load(shipped.find(words[2], shipped.recipes(), ROOT), overrides).name


@pytest.mark.parametrize(("name", "command"), [*all_commands()])
def test_help_of_every_command_has_an_example_of_that_command(name: str, command: click.Command) -> None:
    examples = re.findall(r"Example: (compress .*)", command.help or "")
    assert examples
    assert all(example.startswith(f"compress {name}") for example in examples)


def test_runs_and_sweeps_in_commands_exist() -> None:
    outs = {word for line in COMMANDS for option, word in pairwise(line.split()) if option == "--out"}
    made = {*outs, *(f"runs/{path.stem}" for path in shipped.recipes().values()), "runs/flowers"}
    named = {match for line in COMMANDS for match in re.findall(r"\bruns/\w+", line)}
    assert named <= made
    sweeps = {line.split()[2] for line in COMMANDS if line.startswith("compress sweep")}
    assert sweeps <= set(shipped.sweeps())


@pytest.mark.parametrize("name", sorted(name for name in shipped.recipes() if "/" not in name))
def test_overrides_in_the_help_of_options_are_valid(name: str) -> None:
    texts = [parameter.help or "" for _, command in all_commands() for parameter in command.params
             if isinstance(parameter, click.Option) and "--set" in parameter.opts]  # fmt: skip
    overrides = re.findall(r"e\.g\. (\S+=\w+)", " ".join(texts))
    assert overrides
    if recipe.load(shipped.recipes()[name]).stages:
        assert recipe.load(shipped.recipes()[name], overrides[:1])


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ((?:test|bench|run|lint|clean|audit|reference)[a-z0-9-]*)", text_of(document)))
    assert named
    assert named <= targets
    if document == "CONTRIBUTING.md":
        assert targets - {"help", "run", "clean"} <= named


def test_yaml_is_valid(tmp_path: Path) -> None:
    kinds = [_checked(content, tmp_path / f"{index}.yaml") for index, (_, content) in enumerate(yaml_blocks())]
    assert set(kinds) == {"workflow", "sweep", "recipe", "inventory", "part of a recipe"}


def _checked(content: dict[str, Any], path: Path) -> str:
    """Load a block of YAML as what it is and return that; `path` is a file to write."""
    kind = "part of a recipe"
    if "jobs" in content:
        return "workflow"
    if "vary" in content:
        path.write_text(yaml.safe_dump({**content, "recipe": str(ROOT / "recipes/mobilenet_int8.yaml")}))
        assert sweep.load(path).count() > 1
        return "sweep"
    if all(isinstance(value, dict) and "host" in value for value in content.values()):
        path.write_text(yaml.safe_dump(content))
        assert set(inventory.read(path)) == set(content)
        return "inventory"
    if {"data", "model", "targets"} <= set(content):
        kind, whole = "recipe", content
    else:
        assert set(content) <= set(Recipe.model_fields)
        whole = yaml.safe_load((ROOT / "recipes/smoke.yaml").read_text()) | content
    path.write_text(yaml.safe_dump(whole))
    assert recipe.load(path)
    return kind


def test_python_is_valid() -> None:
    sources = [block for document in DOCUMENTS for block in blocks(document, "python")]
    assert sources
    for source in sources:
        compile(source, "block of a document", "exec")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document: str) -> None:
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(document))):
        if not re.match(r"[a-z]+:", link):
            name, _, anchor = link.partition("#")
            path = (ROOT / document).parent / name if name else ROOT / document
            if not path.exists() or (anchor and anchor not in _anchors(path)):
                missing.append(link)
    assert missing == []


def _anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a file."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_in_the_text_exist(document: str) -> None:
    named = re.findall(r"`((?:compress|export|runtimes|tests|recipes|\.github)/[\w./-]+\.\w+)`", text_of(document))
    missing = [name for name in named if not (ROOT / name).exists() and "NAME" not in name and "accepted" not in name]
    assert missing == []


def test_names_in_the_table_of_extensions_are_in_the_named_files() -> None:
    table = text_of("CONTRIBUTING.md").partition("| to add a | change |\n")[2].partition("\n\n")[0]
    rows = [re.findall(r"`([^`]+)`", row) for row in table.splitlines()[1:]]
    assert len(rows) >= 7
    for codes in rows:
        folder = next((ROOT / code).parent for code in codes if re.fullmatch(r"[\w/]+/\w+\.py", code))
        files = [ROOT / code if "/" in code else folder / code for code in codes if code.endswith(".py")]
        source = "\n".join(file.read_text() for file in files)
        names = [code for code in codes if code.isidentifier()]
        assert [name for name in names if not re.search(rf"\b{name}\b", source)] == []


def test_every_package_with_a_readme_is_linked_from_the_front_page() -> None:
    pages = {name for name in DOCUMENTS if name.endswith("/README.md")}
    assert pages <= set(re.findall(r"\]\(([\w/]+/README\.md)", text_of("README.md")))


def _keys(section: type) -> set[str]:
    return set(getattr(section, "model_fields", None) or (field.name for field in fields(section)))


SECTIONS = {
    "compress/sweep/README.md": (Sweep, Range),
    "compress/boards/README.md": (Board,),
    "compress/data/README.md": tuple(plugins.load("data", name).Config for name in plugins.names("data")),
    "compress/models/README.md": tuple(plugins.load("models", name).Config for name in plugins.names("models")),
}  # fmt: skip


@pytest.mark.parametrize("document", SECTIONS)
def test_every_key_is_documented(document: str) -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(document))))
    keys = {key for section in SECTIONS[document] for key in _keys(section)}
    assert {key for key in keys if not re.search(rf"\b{key}\b", code)} - {"stage"} == set()
