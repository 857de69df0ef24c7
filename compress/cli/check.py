"""The commands that compare results: accept, check and compare."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import rich_click as click

from compress.cli.main import EXIT_CODES_HELP
from compress.process.table import print_table
from compress.report import accepted
from compress.verdict import ci_formats, comparison, gate
from compress.verdict.accepted import default_path
from runtimes.errors import InputError
from runtimes.files import write_text

LIMITS = (
    click.option("--max-top1-drop-pp", default=0.5, show_default=True, type=click.FloatRange(0, 100),
                 help="Allowed loss of top-1 accuracy, and of a class's recall, in percentage points."),
    click.option("--min-agreement", default=0.98, show_default=True, type=click.FloatRange(0, 1, True),
                 help="Share of predictions that must stay the same, if the test images have no labels."),
    click.option("--max-slowdown", default=1.1, show_default=True, type=click.FloatRange(1, 100),
                 help="Allowed slowdown, new / old; each latency is first divided by that of the float32 file of its "
                      "run."),
    click.option("--confidence", default=0.95, show_default=True, type=click.FloatRange(0.5, 1, True, True),
                 help="Confidence of the bounds that decide."),
)  # fmt: skip


def _with_limits(command: click.decorators.FC) -> click.decorators.FC:
    for option in reversed(LIMITS):
        command = option(command)
    return command


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. [default: recipes/accepted/RECIPE.json]",
)
def accept(run_folder: Path, out: Path | None) -> None:
    """Save the results of a run as the reference for later checks.

    The reference holds the predictions and the latency of the shipped file on each target.

    Example: compress accept runs/mobilenet_int8
    """
    click.echo(f"wrote {accepted.accept(run_folder, out)}")


@click.command(epilog=EXIT_CODES_HELP)
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path),
              help="Accepted file or run folder. [default: recipes/accepted/RECIPE.json]")  # fmt: skip
@_with_limits
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write JUnit XML to this file.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path),
              help="Write a Markdown summary to this file. [default: $GITHUB_STEP_SUMMARY]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def check(
    run_folder: Path,
    against: Path | None,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    max_top1_drop_pp: float,
    min_agreement: float,
    max_slowdown: float,
    confidence: float,
) -> None:
    """Check a run for lost accuracy or speed.

    The verdict against an accepted run is pass, regression or inconclusive. Predictions are compared image by image.
    In GitHub workflows each failed check is annotated.

    Example: compress check runs/mobilenet_int8 --junit check.xml
    """
    limits = comparison.Limits(
        max_top1_drop_pp=max_top1_drop_pp, min_agreement=min_agreement, max_slowdown=max_slowdown, confidence=confidence
    )
    new = accepted.load(run_folder)
    old = accepted.load(against or default_path(new.recipe))
    compared = comparison.compare(old, new, limits)
    verdict = comparison.verdict(compared)
    if junit:
        write_text(junit, ci_formats.junit(new.recipe, compared))
    summary = markdown or os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        write_text(Path(summary), ci_formats.markdown(new.recipe, compared, verdict))
    if as_json:
        click.echo(json.dumps({"verdict": verdict, "targets": [asdict(target) for target in compared]}))
    else:
        print_table(ci_formats.table(compared))
        for line in [*ci_formats.details(compared), f"verdict: {verdict}"]:
            click.echo(line)
    if _in_github():
        for line in ci_formats.github(compared):
            click.echo(line, err=as_json)
    sys.exit(gate.EXIT_CODES[verdict])


@click.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@_with_limits
def compare(
    runs: tuple[Path, ...], max_top1_drop_pp: float, min_agreement: float, max_slowdown: float, confidence: float
) -> None:
    """Compare runs or accepted files with the first of them.

    No verdict is given and the exit code is 0; `compress check` judges.

    Example: compress compare recipes/accepted/mobilenet_int8.json runs/a runs/b
    """
    if len(runs) < 2:
        raise InputError("give two or more runs; the others are compared with the first")
    limits = comparison.Limits(
        max_top1_drop_pp=max_top1_drop_pp, min_agreement=min_agreement, max_slowdown=max_slowdown, confidence=confidence
    )
    first, *others = [accepted.load(path) for path in runs]
    for path, other in zip(runs[1:], others, strict=True):
        compared = comparison.compare(first, other, limits)
        print_table(ci_formats.table(compared, f"{path} against {runs[0]}"))
        for line in ci_formats.details(compared):
            click.echo(line)


def _in_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"
