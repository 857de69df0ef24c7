"""The command `compress init`."""

from __future__ import annotations

import shlex
from pathlib import Path

import rich_click as click

from compress.cli import outputs
from compress.cli.parameters import code_option, quiet_option
from compress.init import start
from compress.init.draft import draft
from compress.init.survey import notes, survey, table, warnings
from compress.networks.sources import weights_file
from compress.pipeline import duration, plan
from compress.pipeline.networks import resolve_device
from compress.process.console import Terminal
from compress.process.table import print_table
from compress.recipe import own_code
from runtimes.errors import InputError
from runtimes.files import write_text


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", default=Path("recipe.yaml"), show_default=True, type=outputs.OutputPath(path_type=Path),
              help="Recipe to write.")  # fmt: skip
@click.option("--weights", metavar="FILE|package:NAME|hf:REPO",
              help="Starting weights of a built-in network, or of one of timm whose name the file or repository has. "
                   "[default: an installed package, else random]")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite the recipe.")
@code_option
@quiet_option
def init(folder: Path, out: Path, weights: str | None, force: bool, code: tuple[Path, ...], quiet: bool) -> None:
    """Inspect a folder of images and write a recipe for it.

    FOLDER holds one folder of images per class, or train, val and test with such folders. The recipe says which weights
    it starts from, how long it takes, and which limits this many images can decide; change what you like.

    Example: compress init /data/flowers -o flowers.yaml
    """
    _require_free(out, force)
    own_code.use(code)
    if weights is not None:
        weights_file(weights)  # raises an error for a missing file before the images are read
    with Terminal(quiet=quiet) as terminal:
        images = survey(folder, terminal)
        device = resolve_device("auto")
        drafted = draft(images, start.choose(weights, len(images.data.classes)), device)
        recipe, data = drafted.recipe(), images.data
        time_s = plan.estimate_s(recipe, data)
    print_table(table(images))
    for note in notes(images):
        click.echo(note)
    advice = drafted.start.advice
    weights_warning = [f"the starting weights are random: {advice}"] if advice else []
    for warning in (*warnings(images, drafted.side), *weights_warning, *drafted.gate.warnings):
        click.echo(f"warning: {warning}")
    _write(out, drafted.text(duration.in_words(time_s)))
    epochs = recipe.stages[0].epochs
    click.echo(f"weights: {drafted.start.source}")
    click.echo(
        f"stages: {', '.join(stage.stage for stage in recipe.stages)}, INT8; {epochs} epochs at {drafted.side} px"
    )
    limits = ", ".join(f"{key} {value}" for key, value in drafted.gate.section.items())
    click.echo(f"gate: {limits or 'none'}")
    click.echo(f"wrote {out}; it takes {duration.in_words(time_s)} on this machine")
    options = [part for path in code for part in ("--code", str(path))]
    click.echo(f"next: compress run {shlex.join([str(out), *options])}")


def _write(out: Path, text: str) -> None:
    try:
        write_text(out, text)
    except OSError as error:
        raise InputError(f"{out}: can't be written ({error.strerror}); give another file with -o") from error


def _require_free(out: Path, force: bool) -> None:
    if out.is_dir():
        raise InputError(f"{out}: is a folder; give the name of a file, such as -o {out / 'recipe.yaml'}")
    if out.exists() and not force:
        raise InputError(f"{out}: exists; give another file with -o, or overwrite it with --force")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; create it, or give another file with -o")
