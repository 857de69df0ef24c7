"""Options about the preprocessing of files without a manifest, shared by several commands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import rich_click as click

from compress.model_files import Assumptions
from runtimes.errors import InputError
from runtimes.preprocessing import Interpolation, Preprocessing

Command = Callable[..., None]

PREPROCESSING = (
    click.option("--resize", type=int, help="Shorter side after resizing, in pixels. [default: 256]"),
    click.option("--crop", type=int, help="Side of the centre crop, in pixels. [default: 224]"),
    click.option("--interpolation", help="nearest, bilinear, bicubic or lanczos. [default: bilinear]"),
    click.option("--mean", help="Mean of red, green and blue, of pixels in 0 to 1. [default: 0.485,0.456,0.406]"),
    click.option("--std", help="Standard deviation of red, green and blue. [default: 0.229,0.224,0.225]"),
)
ASSUMPTIONS = (
    click.option("--manifest", metavar="FILE", type=click.Path(path_type=Path),
                 help="Manifest whose preprocessing and labels hold for ONNX files that have none."),
    click.option("--labels", metavar="FILE", type=click.Path(path_type=Path),
                 help="Class names of the outputs, one per line, for files whose classes are numbers."),
)  # fmt: skip


def preprocessing_options(command: Command) -> Command:
    """Add the options of the preprocessing; the command gets `preprocessing`, None if none of them is given."""

    @functools.wraps(command)
    def with_preprocessing(
        *,
        resize: int | None,
        crop: int | None,
        interpolation: Interpolation | None,
        mean: str | None,
        std: str | None,
        **arguments: object,
    ) -> None:
        triples = {"mean": _triple("mean", mean), "std": _triple("std", std)}
        given = {"resize": resize, "crop": crop, "interpolation": interpolation, **triples}
        command(preprocessing=_preprocessing(given), **arguments)

    return _with_options(with_preprocessing, PREPROCESSING)


def plain_file_options(command: Command) -> Command:
    """Add the options about ONNX files without a manifest; the command gets `assumed`."""

    @functools.wraps(command)
    def with_assumptions(
        *, preprocessing: Preprocessing | None, manifest: Path | None, labels: Path | None, **arguments: object
    ) -> None:
        command(assumed=Assumptions(preprocessing, manifest, labels), **arguments)

    return preprocessing_options(_with_options(with_assumptions, ASSUMPTIONS))


def _with_options(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _preprocessing(given: Mapping[str, object]) -> Preprocessing | None:
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return Preprocessing(**chosen) if chosen else None  # type: ignore[arg-type]  # checked by Preprocessing
    except ValueError as error:
        raise InputError(f"preprocessing {error}") from error


def _triple(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--{name}: give three numbers, as in 0.5,0.5,0.5, not {text!r}") from error
