"""`compress.measure`: latency, size and accuracy of files on one target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from compress.api.options import PreprocessingArgument, options_of
from compress.api.targets import TargetOrName, target_here
from compress.model_files import Assumptions, open_files
from compress.process.console import Terminal
from compress.process.table import Table
from compress.report import tables
from runtimes import conditions
from runtimes import evalset as evalsets
from runtimes import measure as measuring
from runtimes.artifact import Artifact
from runtimes.clock import Stream, Timing
from runtimes.errors import InputError
from runtimes.files import Json
from runtimes.measure import Measurement
from runtimes.target import Target

File: TypeAlias = str | Path | Artifact


class Measurements(tuple[Measurement, ...]):
    """Measurements in the order of the files; its repr is a table."""

    __slots__ = ()

    def table(self) -> Table:
        """Return a row for each file."""
        return tables.without_comparison(list(self))

    def to_json(self) -> list[Json]:
        """Return a value that JSON can hold."""
        return [measurement.to_json() for measurement in self]

    def __repr__(self) -> str:
        return "\n".join([*self.table().text(), *conditions.lines(list(self))])


def measure(
    files: File | Iterable[File],
    target: TargetOrName = None,
    *,
    evalset: str | Path | None = None,
    preprocessing: PreprocessingArgument = None,
    blocks: int = 150,
    quiet: bool = False,
) -> Measurements:
    """Measure files on a target of this machine, their runs interleaved; return a measurement of each.

    files: artifacts or paths of model files; an ONNX file needs no manifest beside it.
    target: a target, its name or the path of its YAML file; by default this machine's CPU with one thread.
    evalset: folder with evalset.json, as RUN/sample, to measure accuracy too.
    preprocessing: of ONNX files without a manifest, as a dict with keys of a recipe's section.
    blocks: number of interleaved blocks of 3 runs.
    quiet: show no progress.

    Raises InputError for a file that can't be measured, UnavailableError for a target that is not this machine.
    """
    if type(blocks) is not int or not 2 <= blocks <= 10_000:
        raise InputError(f"blocks: must be a whole number from 2 to 10000, not {blocks!r}")
    paths = _paths(files)
    assumed = Assumptions(options_of(preprocessing))
    return measure_files(
        paths, target_here(target), None if evalset is None else Path(evalset), assumed, Timing(blocks=blocks), quiet
    )


def measure_files(
    paths: Sequence[Path], target: Target, evalset: Path | None, assumed: Assumptions, timing: Timing, quiet: bool
) -> Measurements:
    """Measure files on a target. assumed: about files without a manifest. See `measure`."""
    images = evalsets.load(evalset) if evalset else None
    opened = open_files(paths, assumed, images, needs_pixels=images is not None)
    with Terminal(quiet=quiet) as terminal:
        measurements = measuring.measure(opened.artifacts, target, images, timing, terminal)
        for note in opened.notes:
            terminal.say(note)
    return Measurements(measurements)


def stream_files(
    paths: Sequence[Path], target: Target, evalset: Path | None, assumed: Assumptions, quiet: bool
) -> list[Stream]:
    """Time files by the single-stream scenario of MLPerf. assumed: about files without a manifest."""
    images = evalsets.load(evalset) if evalset else None
    opened = open_files(paths, assumed, images, needs_pixels=images is not None)
    with Terminal(quiet=quiet) as terminal:
        streams = [measuring.stream(artifact, target, images, Timing(), terminal) for artifact in opened.artifacts]
        for note in opened.notes:
            terminal.say(note)
    return streams


def _paths(files: File | Iterable[File]) -> list[Path]:
    listed = [files] if isinstance(files, (str, Path, Artifact)) or not isinstance(files, Iterable) else list(files)
    for file in listed:
        if not isinstance(file, (str, Path, Artifact)):
            raise InputError(f"files: must be artifacts or paths of model files, not {type(file).__name__}")
    return [file.path if isinstance(file, Artifact) else Path(file) for file in listed]
