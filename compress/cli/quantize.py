"""The command `compress quantize`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import get_args

import rich_click as click

from compress.api import quantize as api
from compress.cli import outputs
from compress.cli.parameters import quiet_option
from compress.cli.preprocessing import preprocessing_options
from compress.process.table import print_table
from compress.quantization import tables
from compress.quantization.config import Method, RangeMethod
from compress.quantization.schemes import SCHEMES
from compress.recipe.renamed import RenamedKeyWarning
from export.inputs.options import PreprocessingOptions
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.lineage import QuantizeRecord, find_record

METHODS, RANGE_METHODS = get_args(Method), get_args(RangeMethod)
OLD_METHODS = ("min-max", "moving-average", "percentile", "entropy", "mse")  # range methods of --method before 0.2.0


@click.command()
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option("--calibration", metavar="FOLDER", required=True, type=click.Path(path_type=Path),
              help="Calibration images, without labels; of 10 or more, some are held out to judge.")  # fmt: skip
@click.option("-o", "--out", metavar="OUT.onnx", required=True, type=outputs.FILE,
              help="File to write; its manifest is OUT.onnx.json.")  # fmt: skip
@click.option("--target", default="auto", show_default=True,
              help=f"Scheme: auto (this machine), {', '.join(SCHEMES)}; or a target, as in recipes.")  # fmt: skip
@preprocessing_options
@click.option("--images", default=256, show_default=True, type=click.IntRange(1, 100_000),
              help="Maximum number of images.")  # fmt: skip
@click.option("--method", metavar="[compress|nncf]",
              type=click.Choice(METHODS + OLD_METHODS),
              help="This toolkit's own quantization or that of NNCF. [default: compress]")  # fmt: skip
@click.option("--range-method", type=click.Choice(RANGE_METHODS),
              help="Choice of activation ranges from the images; nncf ignores it. [default: min-max]")  # fmt: skip
@click.option("--min-agreement", type=click.FloatRange(0, 1),
              help="Share of held-out images on which INT8 must predict the same class as float32; of detectors the "
                   "mAP of boxes, of segmentations the share of equal pixels; needs at least 10 images.")  # fmt: skip
@click.option("--min-sqnr-db", type=click.FloatRange(0, 200),
              help="SQNR in dB that the worst output must have on held-out images; "
                   "needs at least 10 images.")  # fmt: skip
@click.option("--allow-poor", is_flag=True,
              help="Write the file even with an SQNR under 10 dB or an agreement under 0.9 on held-out images, instead "
                   "of reverting operators to float until both are met.")  # fmt: skip
@click.option("--engine", hidden=True, type=click.Choice(METHODS), help="Old name of --method.")
@quiet_option
def quantize(
    model: Path,
    calibration: Path,
    out: Path,
    target: str,
    preprocessing: PreprocessingOptions,
    images: int,
    method: str | None,
    range_method: str | None,
    min_agreement: float | None,
    min_sqnr_db: float | None,
    allow_poor: bool,
    engine: str | None,
    quiet: bool,
) -> None:
    """Quantize a float32 ONNX network to INT8.

    The network takes images and gives classes, boxes, masks or an embedding. The file is calibrated with a folder of
    images, which need no labels. The preprocessing of a manifest beside it holds. Size, layout and number of channels
    are those of the file; for open sizes, give --crop. Files in float16 are converted to float32 first; a file that
    takes uint8 normalises by itself.

    Example: compress quantize model.onnx --calibration photos --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 -o int8.onnx
    """
    method, range_method = _with_old_options(method, range_method, engine)
    artifact = api.quantize(
        model, calibration, target, out=out, preprocessing=preprocessing, quiet=quiet, method=method,
        calibration_images=images, calibration={"method": range_method}, min_agreement=min_agreement,
        min_sqnr_db=min_sqnr_db, allow_poor=allow_poor,
    )  # fmt: skip
    _print_quantization(artifact)


def _with_old_options(method: str | None, range_method: str | None, engine: str | None) -> tuple[str, str]:
    """Return the values of --method and --range-method; accept --engine and range methods as --method, with a warning.

    Raises InputError if an old and a new option are both given.
    """
    if method in OLD_METHODS:
        if range_method is not None:
            raise InputError(f"--method {method} is the old name of --range-method, which is given too; remove it")
        _warn_renamed(f"--method {method}", f"--range-method {method}")
        method, range_method = None, method
    if engine is not None:
        if method is not None:
            raise InputError("--engine is the old name of --method, which is given too; remove --engine")
        _warn_renamed("--engine", "--method")
        method = engine
    return method or "compress", range_method or "min-max"


def _warn_renamed(old: str, new: str) -> None:
    warnings.warn(
        f"'{old}' is now called '{new}'; the next version no longer accepts '{old}'", RenamedKeyWarning, stacklevel=2
    )


def _print_quantization(artifact: Artifact) -> None:
    for table in tables.tables(artifact.manifest):
        print_table(table)
    record = find_record(artifact.manifest.lineage, QuantizeRecord)
    if record is not None and record.layers:
        integer = sum(layer.precision == "int8" for layer in record.layers)
        click.echo(f"layers in INT8: {integer} of {len(record.layers)}")
    if record is not None and record.speedup_p50 is not None:
        ratio = record.speedup_p50
        slower = "; INT8 is slower than float32, use the float32 file" if ratio.high < 1 else ""
        click.echo(
            f"speed-up on this machine, one thread: {ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f}){slower}"
        )
    click.echo(f"wrote {artifact.path} ({artifact.manifest.size_bytes / 1e6:.2f} MB) and {artifact.path.name}.json")
