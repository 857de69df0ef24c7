"""The commands that compare results: accept, check and compare."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import rich_click as click
from click import get_current_context
from click.core import ParameterSource

from compress.api import check as api
from compress.cli import outputs
from compress.cli.main import EXIT_CODES_HELP
from compress.process.table import print_table
from compress.recipe.renamed import RenamedKeyWarning
from compress.report import accepted
from compress.verdict import checks, ci_formats, comparison
from compress.verdict.metrics import Metric
from runtimes.errors import InputError
from runtimes.files import write_text

OLD_MAX_DROP, NO_LATENCY = "max_top1_drop_pp", "no_latency"
LIMITS = (
    click.option("--metric", default="top1", show_default=True, type=click.Choice(get_args(Metric)),
                 help="Metric of --max-drop-pp; the other two give all classes the same weight."),
    click.option("--max-drop-pp", default=0.5, show_default=True, type=click.FloatRange(0, 100),
                 help="Allowed loss of the metric, and of a class's recall, in percentage points."),
    click.option("--max-top1-drop-pp", hidden=True, type=click.FloatRange(0, 100)),
    click.option("--min-recall", multiple=True, metavar="CLASS=SHARE",
                 help="Least recall of a class in the new run, as in defective=0.8; can be repeated."),
    click.option("--min-agreement", default=0.98, show_default=True, type=click.FloatRange(0, 1, True),
                 help="Share of predictions that must stay the same, if the test images have no labels."),
    click.option("--max-slowdown", default=1.1, show_default=True, type=click.FloatRange(1, 100),
                 help="Allowed slowdown, new / old; each latency is first divided by that of the float32 file of its "
                      "run."),
    click.option("--no-latency", is_flag=True,
                 help="Do not compare latency, on machines whose speed varies, as in CI."),
    click.option("--confidence", default=0.95, show_default=True, type=click.FloatRange(0.5, 1, True, True),
                 help="Confidence of the bounds that decide."),
)  # fmt: skip


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `LIMITS`, which the command gets as `limits`."""

    @functools.wraps(command)
    def with_limits(**parameters: Any) -> None:  # Any: the parameters of the command
        options = {name: parameters.pop(name) for name in (*comparison.Limits.model_fields, OLD_MAX_DROP, NO_LATENCY)}
        command(limits=_limits(**options), **parameters)

    for option in reversed(LIMITS):
        with_limits = option(with_limits)
    return with_limits


def _limits(
    *,
    max_drop_pp: float,
    max_top1_drop_pp: float | None,
    min_recall: tuple[str, ...],
    max_slowdown: float,
    no_latency: bool,
    **others: Any,
) -> comparison.Limits:
    """Return the limits that options give; others: options that are the fields of `Limits`."""
    if no_latency and _is_given("max_slowdown"):
        raise InputError("--no-latency and --max-slowdown contradict each other; remove one")
    return comparison.Limits(
        max_slowdown=None if no_latency else max_slowdown,
        max_drop_pp=_with_old_option(max_drop_pp, max_top1_drop_pp),
        min_recall=_shares_by_class(min_recall),
        **others,
    )


def _is_given(option: str) -> bool:
    return get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _with_old_option(max_drop_pp: float, max_top1_drop_pp: float | None) -> float:
    """Return the value of --max-drop-pp or of its old name, with a warning; raises InputError if both are given."""
    if max_top1_drop_pp is None:
        return max_drop_pp
    if _is_given("max_drop_pp"):
        raise InputError("--max-top1-drop-pp is the old name of --max-drop-pp, which is given too; remove it")
    warnings.warn(
        "'--max-top1-drop-pp' is now called '--max-drop-pp'; the next version no longer accepts '--max-top1-drop-pp'",
        RenamedKeyWarning,
        stacklevel=2,
    )
    return max_top1_drop_pp


def _shares_by_class(texts: tuple[str, ...]) -> dict[str, float]:
    """Return the shares of --min-recall; raises InputError for a class that is given twice."""
    shares = [_class_and_share(text) for text in texts]
    names = [unicodedata.normalize("NFC", name) for name, _ in shares]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"--min-recall: the class '{twice[0]}' is given twice; keep one of both")
    return dict(shares)


def _class_and_share(text: str) -> tuple[str, float]:
    name, _, share = text.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = math.nan
    if not name or not 0 < value <= 1:
        raise InputError(f"--min-recall {text}: must be CLASS=SHARE with a share above 0 and at most 1, as in "
                         "defective=0.8")  # fmt: skip
    return name, value


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=outputs.FILE,
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
@click.option("--junit", type=outputs.FILE, help="Write JUnit XML to this file.")
@click.option("--markdown", type=outputs.FILE,
              help="Write a Markdown summary to this file. [default: append it to $GITHUB_STEP_SUMMARY]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def check(
    run_folder: Path,
    against: Path | None,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    limits: comparison.Limits,
) -> None:
    """Check a run for lost accuracy or speed.

    The verdict against an accepted run is pass, regression or inconclusive. Predictions are compared image by image.
    In GitHub workflows each failed check is annotated.

    Example: compress check runs/mobilenet_int8 --junit check.xml
    """
    checked = api.check(run_folder, against, **dict(limits))
    if junit:
        write_text(junit, ci_formats.junit(checked.recipe, checked.targets))
    _write_summary(markdown, ci_formats.markdown(checked.recipe, checked.targets, checked.verdict))
    if as_json:
        click.echo(json.dumps(checked.to_json()))
    else:
        print_table(checked.table())
        for line in [*checked.details(), f"verdict: {checked.verdict}"]:
            click.echo(line)
    if _in_github():
        for line in ci_formats.github(checked.targets):
            click.echo(line, err=as_json)
    sys.exit(checks.EXIT_CODES[checked.verdict])


@click.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@_with_limits
def compare(runs: tuple[Path, ...], limits: comparison.Limits) -> None:
    """Compare runs or accepted files with the first of them.

    No verdict is given and the exit code is 0; `compress check` judges.

    Example: compress compare recipes/accepted/mobilenet_int8.json runs/mobilenet_int8 runs/short
    """
    if len(runs) < 2:
        raise InputError("give two or more runs; the others are compared with the first")
    first, *others = [accepted.load(path) for path in runs]
    for path, other in zip(runs[1:], others, strict=True):
        compared = comparison.compare(first, other, limits)
        print_table(ci_formats.table(compared, f"{path} against {runs[0]}"))
        for line in ci_formats.details(compared):
            click.echo(line)


def _write_summary(file: Path | None, text: str) -> None:
    """Write a summary to the file, or append it to that of the workflow's step, which all commands of a step share."""
    of_step = os.environ.get("GITHUB_STEP_SUMMARY")
    if file is not None and not (of_step and file.resolve() == Path(of_step).resolve()):
        write_text(file, text)
    elif of_step:
        Path(of_step).parent.mkdir(parents=True, exist_ok=True)
        with Path(of_step).open("a", encoding="utf-8") as stream:
            stream.write(f"{text}\n")


def _in_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"
