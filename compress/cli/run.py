"""The command `compress run`."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

from compress.api import run as api
from compress.cli import outputs
from compress.cli.main import EXIT_CODES_HELP
from compress.cli.parameters import ShippedFile, code_option, quiet_option
from compress.cli.report import print_report
from compress.pipeline import plan, preflight
from compress.pipeline.run_folder import require_usable
from compress.process.table import print_table
from compress.recipe import own_code, shipped
from compress.recipe import recipe as recipes
from compress.recipe.recipe import Recipe
from compress.verdict import checks


@click.command(epilog=EXIT_CODES_HELP)
@click.argument("recipe", metavar="RECIPE", type=ShippedFile(shipped.recipes))
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True,
              help="Override a value of the recipe, e.g. stages.0.epochs=5; repeatable.")  # fmt: skip
@click.option("--out", type=outputs.FOLDER, help="Run folder. [default: runs/NAME]")
@click.option("--cache", type=outputs.FOLDER,
              help="Folder for cached steps; several runs can share it. [default: the run folder]")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Empty the run folder first instead of resuming.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="List the steps that would run and be reused, with an estimate of their duration; write nothing.",
)
@code_option
@quiet_option
def run(
    recipe: Path, overrides: tuple[str, ...], out: Path | None, cache: Path | None, fresh: bool, dry_run: bool,
    code: tuple[Path, ...], quiet: bool,
) -> None:  # fmt: skip
    """Train, compress, export, measure and judge as a recipe says.

    RECIPE is a YAML file, or a name from `compress list recipes`. The same command resumes an interrupted run.

    Example: compress run mobilenet_int8 --set stages.0.epochs=5 --out runs/short
    """
    own_code.use(code)
    checked = recipes.load(recipe, overrides)
    if dry_run:
        _print_plan(checked, out or Path("runs") / checked.name, cache, fresh)
        return
    result = api.run(checked, out=out, cache=cache, fresh=fresh, quiet=quiet)
    assert result.folder is not None  # of every run
    print_report(result, result.folder)
    sys.exit(checks.EXIT_CODES[result.verdict] if result.verdict else 0)


def _print_plan(recipe: Recipe, out: Path, cache: Path | None, fresh: bool) -> None:
    """Print the steps of a run without starting it."""
    require_usable(out, recipe.name)
    preflight.require_recipe(recipe)
    emptied = out / "steps"  # holds no cache, as if it were empty
    planned = plan.of_recipe(recipe, cache or (emptied if fresh else out))
    print_table(planned.table())
    click.echo(planned.summary())
