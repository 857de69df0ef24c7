"""The command `compress quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from compress.process.console import Terminal
from compress.process.table import print_table
from compress.process.user_cache import user_cache
from compress.quantization import tables
from compress.quantization.config import CalibrationConfig, Quantize
from compress.quantization.onnx_file import FileRequest, quantize_file
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.lineage import QuantizeRecord, find_record
from runtimes.preprocessing import Preprocessing


@click.command()
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
    """Quantize a float32 ONNX classifier to INT8.

    The file is calibrated with a folder of images, which need no labels.

    Example: compress quantize model.onnx --calibration photos --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 -o int8.onnx
    """
    settings = Quantize(engine=engine, calibration_images=images, calibration=CalibrationConfig(method),
                        min_agreement=min_agreement)  # fmt: skip
    try:
        preprocessing = Preprocessing(resize, crop, interpolation, _triple("mean", mean), _triple("std", std))  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"preprocessing {error}") from error
    with Terminal() as terminal:
        request = FileRequest(model, calibration, target, preprocessing, settings, out)
        artifact = quantize_file(request, terminal, user_cache("calibration"))
    _print_quantization(artifact)


def _triple(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--{name}: give three numbers, as in 0.5,0.5,0.5, not {text!r}") from error


def _print_quantization(artifact: Artifact) -> None:
    for title, lines in tables.tables(artifact.manifest).items():
        print_table(lines, title)
    record = find_record(artifact.manifest.lineage, QuantizeRecord)
    if record is not None and record.speedup_p50 is not None:
        ratio = record.speedup_p50
        click.echo(f"speed-up here, one thread: {ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})")
    click.echo(f"wrote {artifact.path} ({artifact.manifest.size_bytes / 1e6:.2f} MB) and {artifact.path.name}.json")
