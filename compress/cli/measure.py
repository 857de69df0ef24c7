"""The commands measure and evaluate."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import rich_click as click

from compress import evaluate as evaluation
from compress.api import measure as api
from compress.cli import outputs
from compress.cli.parameters import quiet_option
from compress.cli.preprocessing import plain_file_options
from compress.model_files import Assumptions, open_files
from compress.process.console import Terminal
from compress.process.table import Table, print_table
from runtimes import conditions
from runtimes import evalset as evalsets
from runtimes.clock import Stream, Timing
from runtimes.errors import InputError
from runtimes.target import Provider, Target


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--evalset", type=click.Path(path_type=Path),
              help="Folder with evalset.json, e.g. RUN/sample, to measure accuracy too.")  # fmt: skip
@click.option("--runtime", default="ort", show_default=True, help="Name from `compress list runtimes`.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="CPU threads.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1, 4096), help="Images per call.")
@click.option(
    "--blocks", default=150, show_default=True, type=click.IntRange(2, 10_000), help="Interleaved blocks of 3 runs."
)
@click.option("--mlperf", is_flag=True, help="Measure as MLPerf single stream: 1,024 queries, 60 seconds, p90.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
@plain_file_options
@quiet_option
def measure(
    artifacts: tuple[Path, ...],
    evalset: Path | None,
    runtime: str,
    threads: int,
    batch: int,
    blocks: int,
    mlperf: bool,
    as_json: bool,
    assumed: Assumptions,
    quiet: bool,
) -> None:
    """Measure artifacts on this machine.

    The runs of several artifacts are interleaved, so that a slow moment of the machine affects all of them alike. An
    ONNX file of another tool needs no manifest: its preprocessing is that of the options or of --manifest.

    Example: compress measure runs/mobilenet_int8/artifacts/*.onnx
    """
    try:
        target = Target("local", runtime, threads=threads, batch=batch)
    except ValueError as error:
        raise InputError(f"--runtime: {error}") from error
    if mlperf:
        _print_streams(artifacts, api.stream_files(artifacts, target, evalset, assumed, quiet), as_json)
        return
    measurements = api.measure_files(artifacts, target, evalset, assumed, Timing(blocks=blocks), quiet)
    if as_json:
        click.echo(json.dumps(measurements.to_json()))
    else:
        print_table(measurements.table())
        for line in conditions.lines(list(measurements)):
            click.echo(line)


def _print_streams(artifacts: tuple[Path, ...], streams: list[Stream], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{"artifact": path.name, **asdict(stream)}
                               for path, stream in zip(artifacts, streams, strict=True)]))  # fmt: skip
        return
    rows = [
        (
            path.name,
            str(stream.queries),
            f"{stream.duration_s:.1f}",
            *(f"{ms:.2f}" for ms in (stream.latency_ms_p90, stream.latency_ms_p50, stream.latency_ms_p99)),
        )
        for path, stream in zip(artifacts, streams, strict=True)
    ]
    print_table(Table.of("MLPerf single stream", "<artifact|queries|seconds|p90 ms|p50|p99", rows))


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", metavar="NAME:ROOT", help="Data set, for example imagefolder:/data/flowers or elpv.")
@click.option("--evalset", type=click.Path(path_type=Path),
              help="Folder with evalset.json, e.g. RUN/sample, instead of --data.")  # fmt: skip
@click.option("--split", type=click.Choice(["test", "val"]), help="Split of the data set. [default: test]")
@click.option("--all-images", is_flag=True,
              help="Evaluate all splits, with the images that a run learned from.")  # fmt: skip
@click.option("--runtime", default="ort", show_default=True, help="Name from `compress list runtimes`.")
@click.option("--provider", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]),
              help="Device of the runtime.")  # fmt: skip
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="CPU threads.")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(1, 4096), help="Images per call.")
@click.option("--out", type=outputs.FOLDER,
              help="Folder for the predictions; the same command resumes there.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@plain_file_options
@quiet_option
def evaluate(
    artifacts: tuple[Path, ...],
    data: str | None,
    evalset: Path | None,
    split: str | None,
    all_images: bool,
    runtime: str,
    provider: Provider,
    threads: int,
    batch: int,
    out: Path | None,
    as_json: bool,
    assumed: Assumptions,
    quiet: bool,
) -> None:
    """Evaluate the accuracy of artifacts on a data set.

    The first artifact is the baseline of the comparison. An ONNX file of another tool needs no manifest: its
    preprocessing is that of the options, of --manifest, or of the other files.

    Of artifacts in run folders, images of the run's train and val splits are left out, which are recognized by their
    bytes; the run's own data set is evaluated on its test split.

    Example: compress evaluate runs/mobilenet_int8/artifacts/*.onnx --data elpv --out answers

    Example: compress evaluate float32.onnx int8.onnx --data imagefolder:photos --labels classes.txt
    """
    try:
        target = Target("local", runtime, provider, threads=threads, batch=batch)
    except ValueError as error:
        raise InputError(f"--runtime: {error}") from error
    opened = open_files(artifacts, assumed, evalsets.load(evalset) if evalset else None, needs_pixels=True)
    images = evaluation.find_images(data, evalset, split, opened.artifacts, all_images)
    with Terminal(quiet=quiet) as terminal:
        results = evaluation.evaluate(opened.artifacts, images, target, out, terminal)
        for note in opened.notes:
            terminal.say(note)
    if as_json:
        click.echo(json.dumps([result.to_json() for result in results]))
        return
    for table in evaluation.tables(results):
        print_table(table)
    for note in (*images.notes, *results[0].unreadable_notes()):
        click.echo(note)
