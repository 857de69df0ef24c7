"""Options about the preprocessing of files without a manifest, shared by several commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import rich_click as click

from compress.model_files import Assumptions
from export.inputs.options import PreprocessingOptions
from runtimes.errors import InputError
from runtimes.preprocessing import Channels, Interpolation, Sides

Command = Callable[..., None]

PREPROCESSING = (
    click.option("--resize", type=int,
                 help="Shorter side after resizing, in pixels. [default: 8/7 of the crop's shorter side]"),
    click.option("--crop", metavar="SIDE|HxW",
                 help="Side, or height and width, of the centre crop in pixels, as in 224 or 48x192. [default: the "
                      "network's size; 224 if it takes any]"),
    click.option("--interpolation", help="nearest, bilinear, bicubic or lanczos. [default: bilinear]"),
    click.option("--mean", help="Mean of all channels, or one for each, of pixels in 0 to 1. [default: "
                                "0.485,0.456,0.406; 0.449 for other channels than red, green and blue]"),
    click.option("--std", help="Standard deviation, likewise. [default: 0.229,0.224,0.225; 0.226]"),
    click.option("--channels", type=click.Choice(get_args(Channels)),
                 help="Order of the network's channels, also of mean and std; array: uint8 (height, width, C) "
                      "in .npy files. [default: rgb, grey or rgba by the number of channels, else array]"),
)  # fmt: skip
ASSUMPTIONS = (
    click.option("--manifest", metavar="FILE", type=click.Path(path_type=Path),
                 help="Manifest whose preprocessing and labels hold for ONNX files that have none."),
    click.option("--labels", metavar="FILE", type=click.Path(path_type=Path),
                 help="Class names of the outputs, one per line, for files whose classes are numbers."),
)  # fmt: skip


def preprocessing_options(command: Command) -> Command:
    """Add the options of the preprocessing; the command gets `preprocessing`."""

    @functools.wraps(command)
    def with_preprocessing(
        *,
        resize: int | None,
        crop: str | None,
        interpolation: Interpolation | None,
        mean: str | None,
        std: str | None,
        channels: Channels | None,
        **arguments: object,
    ) -> None:
        options = PreprocessingOptions(
            resize, _crop(crop), interpolation, _numbers("mean", mean), _numbers("std", std), channels
        )
        command(preprocessing=options, **arguments)

    return _with_options(with_preprocessing, PREPROCESSING)


def plain_file_options(command: Command) -> Command:
    """Add the options about ONNX files without a manifest; the command gets `assumed`."""

    @functools.wraps(command)
    def with_assumptions(
        *, preprocessing: PreprocessingOptions, manifest: Path | None, labels: Path | None, **arguments: object
    ) -> None:
        command(assumed=Assumptions(preprocessing, manifest, labels), **arguments)

    return preprocessing_options(_with_options(with_assumptions, ASSUMPTIONS))


def _with_options(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _crop(text: str | None) -> int | Sides | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--crop: give one side or height and width, as in 224 or 48x192, not {text!r}")
    height, width = int(parts[0]), int(parts[-1])
    return height if height == width else (height, width)


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--{name}: give one number, or one for each channel, as in 0.5,0.5,0.5, not {text!r}"
        ) from error
