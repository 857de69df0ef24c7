"""The command `compress sweep`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from compress.cli import outputs
from compress.cli.parameters import ShippedFile, code_option, quiet_option
from compress.process.console import Terminal
from compress.process.table import print_table
from compress.recipe import own_code, shipped
from compress.sweep import results, search


@click.command()
@click.argument("sweep_file", metavar="SWEEP", type=ShippedFile(shipped.sweeps))
@click.option("--out", type=outputs.FOLDER, help="Folder for all trials. [default: sweeps/NAME]")
@click.option("--storage", metavar="URL",
              help="Optuna storage that several machines can reach. [default: a file in the folder]")  # fmt: skip
@code_option
@quiet_option
def sweep(sweep_file: Path, out: Path | None, storage: str | None, code: tuple[Path, ...], quiet: bool) -> None:
    """Run a recipe with many settings and find the Pareto front.

    SWEEP is a YAML file, or a name from `compress list sweeps`.

    The front holds the trials to which no other is preferable by more than noise. `~ 3` marks a trial of the front that
    is not distinguishable from trial 3. The same command resumes an interrupted sweep. Several processes that run it at
    once share the trials.

    Example: compress sweep solar
    """
    own_code.use(code)
    checked = search.load(sweep_file)
    folder = out or Path("sweeps") / sweep_file.stem
    with Terminal(folder / "sweep.log", quiet) as terminal:
        trials = search.run(sweep_file, checked, folder, storage, terminal)
    print_table(results.table(sweep_file.stem, trials, checked))
    click.echo(f"recipes of the Pareto front: {folder / 'front'}; table and chart: {folder / 'sweep.md'}")
