"""The commands for boards: bundle and deploy."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from compress.boards import deploy as deployment
from compress.boards.inventory import find_board
from compress.cli import outputs
from compress.cli.parameters import quiet_option
from compress.cli.report import print_report
from compress.process.console import Terminal
from compress.report import artifacts, documents, report
from export.bundle import write_bundle
from runtimes import bundle as bundles
from runtimes import evalset
from runtimes.errors import InputError


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--target", help="Target of the recipe. [default: the first]")
@click.option("-o", "--out", metavar="OUT.tar", required=True, type=outputs.FILE,
              help="File to write.")  # fmt: skip
def bundle(run_folder: Path, target: str | None, out: Path) -> None:
    """Pack an artifact and the program that runs it into one tar.

    The program verifies, measures and runs the artifact.
    The board needs Python 3.10 or later, numpy and the runtime. There: tar xf OUT.tar; python3 run.pyz verify

    Example: compress bundle runs/mobilenet_int8 -o solar.tar
    """
    artifact, chosen = artifacts.artifact_for(report.read(run_folder), run_folder, target)
    folder = run_folder / report.SAMPLE
    write_bundle(artifact, chosen, folder, evalset.load(folder), out)
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB): {artifact.path.name} for target '{chosen.name}'")


@click.command()
@click.argument("bundle_file", metavar="BUNDLE.tar", type=click.Path(path_type=Path))
@click.argument("board", metavar="USER@BOARD")
@click.option("--run", "run_folder", type=click.Path(path_type=Path),
              help="Run folder to add the results to. [default: runs/RECIPE of the bundle]")  # fmt: skip
@click.option("--inventory", type=click.Path(path_type=Path),
              help="YAML with boards by name: host, user, port, python, folder, identity.")  # fmt: skip
@click.option("--identity", type=click.Path(path_type=Path), help="Private key. [default: those in ~/.ssh]")
@click.option("--known-hosts", type=click.Path(path_type=Path), help="[default: ~/.ssh/known_hosts]")
@click.option("--python", help="Python on the board, with numpy and the runtime. [default: python3]")
@quiet_option
def deploy(
    bundle_file: Path,
    board: str,
    run_folder: Path | None,
    inventory: Path | None,
    identity: Path | None,
    known_hosts: Path | None,
    python: str | None,
    quiet: bool,
) -> None:
    """Copy a bundle to a board over SSH and measure it there.

    The results are added to the run's report.
    The board needs only Python 3.10 or later, numpy and the runtime. Files that it already has are not copied again.

    Example: compress deploy solar.tar pi@192.168.1.20
    """
    folder = run_folder or Path("runs") / (bundles.recipe_of(bundle_file) or "")
    content = report.read(folder)  # fail before any work
    settings = find_board(board, inventory)
    options = {"identity": identity, "python": python}
    settings = settings.model_copy(update={name: value for name, value in options.items() if value is not None})
    name = board if board.replace("-", "").replace("_", "").isalnum() else settings.host
    if not name or name.startswith("."):
        raise InputError(f"'{board}' is no name for a folder; name the board in an inventory")
    with Terminal(quiet=quiet) as terminal:
        deployed = deployment.deploy(bundle_file, name, settings, known_hosts, terminal)
    deployment.store(folder, deployed)
    documents.write(content, folder)
    print_report(content, folder)
