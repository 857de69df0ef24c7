"""The commands about recipes: validate, schema and list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import rich_click as click

from compress import doctor
from compress.cli.shipped_file import ShippedFile
from compress.pipeline import preflight
from compress.recipe import recipe as recipes
from compress.recipe import shipped
from runtimes.errors import InputError, UnavailableError


@click.command()
@click.argument("recipe", metavar="RECIPE", type=ShippedFile(shipped.recipes))
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True,
              help="Override a value of the recipe first, e.g. stages.0.epochs=3; repeatable.")  # fmt: skip
def validate(recipe: Path, overrides: tuple[str, ...]) -> None:
    """Check a recipe and report all its problems at once.

    Each line names the path of a problem in the file, the value, and what would be valid. Weights, names of modules and
    the data set are checked as before a run; a data set that is not on this machine is not checked, which is said.

    RECIPE is a YAML file, or a name from `compress list recipes`.

    Example: compress validate mobilenet_int8
    """
    checked = recipes.load(recipe, overrides)
    unchecked = []
    try:
        for check in (preflight.require_recipe, preflight.require_data_here):
            try:
                check(checked)
            except UnavailableError as error:
                unchecked += str(error).splitlines()
    except InputError as error:
        raise InputError("\n".join(f"{recipe}: {line}" for line in str(error).splitlines())) from error
    click.echo(f"{recipe}: valid; {len(checked.stages)} stages, {len(checked.targets)} targets")
    for line in unchecked:
        click.echo(f"{recipe}: not checked: {line}")


@click.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Example: compress schema > recipe.schema.json
    """
    click.echo(json.dumps(recipes.json_schema(), indent=1))


@click.command("list")
@click.argument("kind", type=click.Choice(get_args(doctor.Listed)))
def list_command(kind: doctor.Listed) -> None:
    """List what a recipe can name, one line each.

    Example: compress list models
    """
    lines = doctor.listing(kind)
    if kind in doctor.FILES:
        click.echo(f"files in {shipped.folder()}; copy one to change it", err=True)
    width = max((len(name) for name, _ in lines), default=0)
    for name, line in lines:
        click.echo(f"{name:<{width}}  {line}")
