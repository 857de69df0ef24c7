"""The commands about recipes: validate, schema and list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import rich_click as click

from compress import doctor
from compress.cli.parameters import ShippedFile, code_option
from compress.pipeline import preflight
from compress.pipeline.checks import unavailable_targets
from compress.pipeline.networks import resolve_device
from compress.recipe import keys, own_code, shipped
from compress.recipe import recipe as recipes
from compress.recipe.json_schema import recipe_schema
from compress.recipe.recipe import Recipe
from export.inputs.options import described
from runtimes.console import counted
from runtimes.errors import InputError, UnavailableError


@click.command()
@click.argument("recipe", metavar="RECIPE", type=ShippedFile(shipped.recipes))
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True,
              help="Override a value of the recipe first, e.g. stages.0.epochs=3; repeatable.")  # fmt: skip
@code_option
def validate(recipe: Path, overrides: tuple[str, ...], code: tuple[Path, ...]) -> None:
    """Check a recipe and report all its problems at once.

    Each line names the path of a problem in the file, the value, and what would be valid. Weights, names of modules,
    files and folders of the data set, its images' labels and the runtimes of the targets are checked as before a run.
    Valid recipes are shown with their preprocessing, whose missing keys are those of the network. The command says what
    it can't check: a data set at a URL, a package or a target that is not on this machine.

    RECIPE is a YAML file, or a name from `compress list recipes`.

    Example: compress validate mobilenet_int8
    """
    own_code.use(code)
    checked = recipes.load(recipe, overrides)
    problems, unchecked = [], []
    for check in (preflight.require_recipe, preflight.require_data_here, _require_device, unavailable_targets):
        try:
            check(checked)
        except UnavailableError as error:
            unchecked += str(error).splitlines()
        except InputError as error:
            problems += str(error).splitlines()
    if problems:
        raise InputError("\n".join(f"{recipe}: {line}" for line in problems))
    click.echo(f"{recipe}: valid; {counted(len(checked.stages), 'stage')}, {counted(len(checked.targets), 'target')}")
    click.echo(f"{recipe}: preprocessing: {described(checked.preprocessing)}")
    for line in unchecked:
        click.echo(f"{recipe}: not checked: {line}")


def _require_device(recipe: Recipe) -> None:
    """Raise UnavailableError for a device that this machine lacks."""
    resolve_device(recipe.device)


@click.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Example: compress schema > recipe.schema.json
    """
    click.echo(json.dumps(recipe_schema(), indent=1))


def _complete_key(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [key.path for section in keys.sections() for key in section.keys if key.path.startswith(incomplete)]


@click.command()
@click.argument("key", required=False, shell_complete=_complete_key)
def explain(key: str | None) -> None:
    """Explain a key or section of recipes, or list the sections.

    KEY is a dotted path such as gate.max_drop_pp, the end of one, or a section such as stages.prune.

    Example: compress explain stages.prune.latency
    """
    known = keys.sections()
    if key is None:
        _print_section(known[0])
        click.echo(f"sections: {', '.join(section.path for section in known if section.path)}")
        return
    for entry in keys.find(key, known):
        if isinstance(entry, keys.Section):
            _print_section(entry)
        else:
            click.echo(f"{entry.path}: {entry.text}")
            click.echo(f"  value: {entry.type}")
            if entry.default or entry.type.startswith("section"):  # the text of others says what holds by default
                click.echo(f"  default: {entry.default or 'see its keys'}")
    below = [section.path for section in known if section.path.rpartition(".")[0] == key]
    if below:
        click.echo(f"sections: {', '.join(below)}")


def _print_section(section: keys.Section) -> None:
    """Print the text of a section and a line for each key."""
    click.echo(f"{section.path or 'recipe'}: {section.text}")
    width = max(len(key.name) for key in section.keys)
    for key in section.keys:
        click.echo(f"  {key.name:<{width}}  {key.text}")


@click.command("list")
@click.argument("kind", metavar="KIND", type=click.Choice(get_args(doctor.Listed)))
@click.option("--timm", "pattern", metavar="PATTERN",
              help="List timm's networks with such names instead, e.g. '*mobilenetv4*'; for `arch: timm`.")  # fmt: skip
def list_command(kind: doctor.Listed, pattern: str | None) -> None:
    """List what a recipe can name, one line each.

    KIND is models, data, stages, runtimes, recipes, sweeps or targets. With --timm, a line has the name, the size of
    the images that the network was made for, and the tags of its published weights.

    Example: compress list models

    Example: compress list models --timm '*mobilenetv4*'
    """
    if pattern is not None:
        _list_timm(kind, pattern)
        return
    lines = doctor.listing(kind)
    if kind in doctor.FILES:
        click.echo(f"files in {shipped.folder()}; copy one to change it", err=True)
    width = max((len(name) for name, _ in lines), default=0)
    for name, line in lines:
        click.echo(f"{name:<{width}}  {line}")


def _list_timm(kind: doctor.Listed, pattern: str) -> None:
    if kind != "models":
        raise click.UsageError(f"--timm lists networks; write: compress list models --timm '{pattern}'")
    lines = doctor.timm_listing(pattern)
    click.echo("for model: {arch: timm, name: NAME, weights: TAG}", err=True)
    for line in lines:
        click.echo(line)
