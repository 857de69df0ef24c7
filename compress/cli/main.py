"""The command line: parse, call one function, print, set the exit code. Heavy packages load inside the commands."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from compress import __version__
from compress.cli import check as check_cli
from compress.cli import data, measure
from compress.process.table import print_table
from runtimes.errors import CompressError

CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space or "),
    **dict.fromkeys((errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG), ""),
}

EXIT_CODES_HELP = "Exit codes: 0 pass, 1 the tool failed, 2 bad usage or recipe, 3 regression, 4 inconclusive."


class _Commands(click.RichGroup):
    """Turns the toolkit's errors into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except CompressError as error:
            _fail(str(error), error.exit_code)
        except OSError as error:
            if error.errno not in CURES:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror}; {CURES[error.errno]}choose another folder with --out and run it again", 1)


def _fail(message: str, code: int) -> None:
    for line in message.splitlines():
        click.echo(f"compress: {line}", err=True)
    sys.exit(code)


def main() -> None:
    """Run the command line and exit."""
    commands()


@click.group(cls=_Commands, epilog=EXIT_CODES_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="compress")
def commands() -> None:
    """Make image classifiers small and fast for edge devices, and prove it.

    Example: compress run recipes/mobilenet_int8.yaml
    """


for command in (
    data.data, check_cli.accept, check_cli.check, check_cli.compare, measure.measure, measure.evaluate
):  # fmt: skip
    commands.add_command(command)


@commands.command(epilog=EXIT_CODES_HELP)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a recipe's value, e.g. stages.0.epochs=3."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; runs/NAME of the recipe unless given.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of the steps' results, which runs may share; "
              "the run folder unless given.")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Empty the run folder first instead of going on with it.")
def run(recipe: Path, overrides: tuple[str, ...], out: Path | None, cache: Path | None, fresh: bool) -> None:
    """Train, quantize, export, measure and judge as a recipe says; a second run goes on where the first stopped.

    Example: compress run recipes/mobilenet_int8.yaml --set stages.0.epochs=5 --out runs/short
    """
    from compress.pipeline import run as pipeline
    from compress.pipeline.run_folder import RunFolder
    from compress.process import distributed
    from compress.process.console import Terminal
    from compress.process.tracking import tracking
    from compress.recipe import recipe as recipes
    from compress.verdict import gate

    checked = recipes.load(recipe, overrides)
    with distributed.together():
        folder = RunFolder(out or Path("runs") / checked.name, checked.name, fresh, cache)
        with (
            Terminal(folder.path / "run.log", quiet=not distributed.is_first()) as terminal,
            tracking(checked.tracking if distributed.is_first() else (), folder.path, checked.name) as track,
        ):
            result = pipeline.run(checked, folder, terminal, track)
    if result is None:
        return
    _print_report(folder.path)
    sys.exit(gate.EXIT_CODES[result.verdict] if result.verdict else 0)


@commands.command()
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for all trials; sweeps/NAME unless given.")
@click.option("--storage", metavar="URL", help="A database that several machines reach, as Optuna names it; a file in "
              "the folder unless given.")  # fmt: skip
def sweep(sweep_file: Path, out: Path | None, storage: str | None) -> None:
    """Run a recipe with many settings, a grid or a search, to the Pareto front of accuracy and latency.

    The same command goes on where it stopped; run it several times at once, and they share the trials.

    Example: compress sweep recipes/sweeps/solar.yaml
    """
    from compress.process.console import Terminal
    from compress.sweep import results as sweep_results
    from compress.sweep import search as sweeping

    checked = sweeping.load(sweep_file)
    folder = out or Path("sweeps") / sweep_file.stem
    with Terminal(folder / "sweep.log") as terminal:
        trials = sweeping.run(sweep_file, checked, folder, storage, terminal.say)
    print_table(sweep_results.table(trials, checked), f"{sweep_file.stem}: {checked.method}, {len(trials)} trials")
    click.echo(f"recipes of the front: {folder / 'front'}; table and picture: {folder / 'sweep.md'}")


@commands.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a recipe's value first.")
def validate(recipe: Path, overrides: tuple[str, ...]) -> None:
    """Check a recipe and report all problems at once, each with its path.

    Example: compress validate recipes/mobilenet_int8.yaml
    """
    from compress.recipe import recipe as recipes

    checked = recipes.load(recipe, overrides)
    click.echo(f"{recipe}: valid; {len(checked.stages)} stages, {len(checked.targets)} targets")


@commands.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Example: compress schema > recipe.schema.json
    """
    from compress.recipe import recipe as recipes

    click.echo(json.dumps(recipes.json_schema(), indent=1))


@commands.command("list")
@click.argument("kind", type=click.Choice(["models", "data", "stages", "runtimes", "recipes", "targets"]))
def list_(kind: str) -> None:
    """List what a recipe can name, with one line about each.

    Example: compress list models
    """
    from compress import doctor

    for name, line in doctor.listing(kind):
        click.echo(f"{name:<24} {line}")


@commands.command()
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option("--calibration", metavar="FOLDER", required=True, type=click.Path(path_type=Path),
              help="Images to calibrate on, without labels; some are held out to judge on.")  # fmt: skip
@click.option("-o", "--out", metavar="OUT.onnx", required=True, type=click.Path(path_type=Path))
@click.option("--target", default="auto", show_default=True,
              help="auto (this machine), x86-avx2, x86-vnni, arm64, tensorrt or generic.")  # fmt: skip
@click.option("--resize", default=256, show_default=True, help="Shorter side in pixels.")
@click.option("--crop", default=224, show_default=True, help="Side of the centre square in pixels.")
@click.option("--interpolation", default="bilinear", show_default=True, help="nearest, bilinear, bicubic or lanczos.")
@click.option("--mean", default="0.485,0.456,0.406", show_default=True, help="Of red, green and blue, in 0 to 1.")
@click.option("--std", default="0.229,0.224,0.225", show_default=True, help="Of red, green and blue.")
@click.option("--images", default=256, show_default=True, type=click.IntRange(1, 100_000), help="At most so many.")
@click.option("--method", default="min-max", show_default=True,
              type=click.Choice(["min-max", "moving-average", "percentile", "entropy", "mse"]))  # fmt: skip
@click.option("--min-agreement", type=click.FloatRange(0, 1),
              help="Share of held-out images that must keep float32's answer.")  # fmt: skip
@click.option("--engine", default="compress", show_default=True, type=click.Choice(["compress", "nncf"]))
def quantize(
    model: Path,
    calibration: Path,
    out: Path,
    target: str,
    resize: int,
    crop: int,
    interpolation: str,
    mean: str,
    std: str,
    images: int,
    method: Any,
    min_agreement: float | None,
    engine: Any,
) -> None:
    """Make an INT8 file for a target from any float32 ONNX classifier and a folder of images.

    Example: compress quantize model.onnx --calibration photos --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 -o int8.onnx
    """
    from compress.process.console import Terminal
    from compress.process.user_cache import user_cache
    from compress.quantization.config import Calibration, Quantize
    from compress.quantization.onnx_file import quantize_file
    from runtimes.errors import InputError
    from runtimes.preprocessing import Preprocessing

    settings = Quantize(engine=engine, calibration_images=images, calibration=Calibration(method),
                        min_agreement=min_agreement)  # fmt: skip
    try:
        preprocessing = Preprocessing(resize, crop, interpolation, _triple("mean", mean), _triple("std", std))  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"preprocessing {error}") from error
    with Terminal() as terminal:
        made = quantize_file(model, calibration, target, preprocessing, settings, out, terminal.progress, terminal.say,
                             user_cache("calibration"))  # fmt: skip
    _print_quantization(made)


def _triple(name: str, text: str) -> tuple[float, ...]:
    from runtimes.errors import InputError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--{name}: give three numbers, as in 0.5,0.5,0.5, not {text!r}") from error


def _print_quantization(artifact: Any) -> None:
    from compress.quantization import tables as quantization_tables

    for title, lines in quantization_tables.tables(artifact.manifest).items():
        print_table(lines, title)
    for step in artifact.manifest.lineage:
        if "speedup_p50" in step:
            ratio = step["speedup_p50"]
            click.echo(f"speed-up here, one thread: {ratio['value']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})")
    click.echo(f"wrote {artifact.path} ({artifact.manifest.size_bytes / 1e6:.2f} MB) and {artifact.path.name}.json")


@commands.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--target", help="A target of the recipe; the first unless given.")
@click.option("-o", "--out", metavar="OUT.tar", required=True, type=click.Path(path_type=Path))
def bundle(run_folder: Path, target: str | None, out: Path) -> None:
    """Pack what ships to a target, with a program that checks, measures and runs it there, into one tar.

    The board needs Python 3.10 or later, numpy and the runtime: tar xf OUT.tar; python3 run.pyz verify

    Example: compress bundle runs/mobilenet_int8 -o solar.tar
    """
    from compress.report import report
    from export.bundle import write_bundle
    from runtimes import evalset

    artifact, chosen = report.shipped(run_folder, target)
    folder = run_folder / report.SAMPLE
    write_bundle(artifact, chosen, folder, evalset.load(folder), out)
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB): {artifact.path.name} for target '{chosen.name}'")


@commands.command()
@click.argument("bundle_file", metavar="BUNDLE.tar", type=click.Path(path_type=Path))
@click.argument("board", metavar="USER@BOARD")
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="Run folder for what was measured; that "
              "of the bundle's recipe in runs/ unless given.")  # fmt: skip
@click.option("--inventory", type=click.Path(path_type=Path), help="YAML with boards by name: host, user, port, "
              "python, folder, identity.")  # fmt: skip
@click.option("--identity", type=click.Path(path_type=Path), help="Private key; those of ~/.ssh unless given.")
@click.option("--known-hosts", type=click.Path(path_type=Path), help="~/.ssh/known_hosts unless given.")
@click.option("--python", help="On the board, with numpy and the runtime; python3 unless given.")
def deploy(
    bundle_file: Path,
    board: str,
    run_folder: Path | None,
    inventory: Path | None,
    identity: Path | None,
    known_hosts: Path | None,
    python: str | None,
) -> None:
    """Copy a bundle to a board over ssh, verify and measure it there, and bring the figures into the run's report.

    The board needs nothing but Python 3.10 or later, numpy and the runtime. What is there already is not copied again.

    Example: compress deploy solar.tar pi@192.168.1.20
    """
    from compress.boards import deploy as deploying
    from compress.process.console import Terminal
    from compress.report import documents, report
    from runtimes import bundle as bundles
    from runtimes.errors import InputError

    folder = run_folder or Path("runs") / (bundles.recipe_of(bundle_file) or "")
    report.read(folder)  # before any work
    wanted = deploying.find_board(board, inventory)
    given = {"identity": identity, "python": python}
    wanted = wanted.model_copy(update={name: value for name, value in given.items() if value is not None})
    name = board if board.replace("-", "").replace("_", "").isalnum() else wanted.host
    if not name or name.startswith("."):
        raise InputError(f"'{board}' is no name for a folder; name the board in an inventory")
    with Terminal() as terminal:
        done = deploying.deploy(bundle_file, name, wanted, known_hosts, terminal.progress, terminal.say)
    deploying.store(folder, done)
    documents.write(folder)
    _print_report(folder)


@commands.command("report")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def report_(run_folder: Path) -> None:
    """Write report.html and report.md of a run again from its report.json, and print the table.

    Example: compress report runs/mobilenet_int8
    """
    from compress.report import documents

    documents.write(run_folder)
    _print_report(run_folder)


@commands.command()
def doctor() -> None:
    """Say what this machine can run, and what is missing for the rest.

    Example: compress doctor
    """
    from compress import doctor as examination

    for subject, finding in examination.examine():
        click.echo(f"{subject:<18} {finding}")


def _print_report(folder: Path) -> None:
    from compress.report import report
    from compress.report import tables as report_tables

    content = report.read(folder)
    shown = report_tables.measured(content) | report_tables.boards(folder) | report_tables.elsewhere(content)
    for title, lines in shown.items():
        print_table(lines, title)
    for row in content["rows"]:
        for check in row["checks"]:
            estimate = check["estimate"]
            click.echo(f"{row['target']}: {check['name']} {check['limit']:g}: {estimate['value']:.2f} "
                       f"({estimate['low']:.2f} to {estimate['high']:.2f}): {check['verdict']}")  # fmt: skip
    click.echo(f"verdict: {content['verdict'] or 'none, the recipe has no gate'}")
    click.echo(f"report: {folder / 'report.html'}")
