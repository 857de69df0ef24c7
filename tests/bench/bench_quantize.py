"""Benchmark of INT8 quantization: speed and accuracy of this package, ONNX Runtime, NNCF and OpenVINO.

The float32 file of each network is quantized by every method on the same calibration images, for this machine's
processor. The columns:

speed   float32 p50 / INT8 p50 with one thread and batch 1; the files of a network are interleaved in one process
agree   share of images with the same top-1 as float32, on images that were not used for calibration
dB      signal-to-noise ratio of the logits on the same images
top-1   accuracy in % on images with a known class: 20 for efficientnet_lite0, 654 for the other networks
drop    loss of top-1 in percentage points against float32

The networks and images are described in `quantize_networks`, the methods in `quantize_peers`. "ours, after qat" is
trained with rounded weights for 4 more epochs; only "ours" is compared with the other methods. The rows of OpenVINO
need the package openvino.

The last line is JSON. The networks are trained once, which takes about 20 minutes on two cores (ResNet-18 for 8 epochs
only), and are kept in runs/bench_quantize. Later runs take about 12 minutes.

    make bench-quantize [PHOTOS=FOLDER]
    python tests/bench/bench_quantize.py --models efficientnet_lite0,mobilenet_v3 --photos FOLDER --judge FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from quantize_networks import FOLDER, PHOTOS, UNKNOWN, Subject, names, prepare
from quantize_peers import OPENVINO, OURS, OURS_QAT, has_openvino, openvino, quantize_all

from compress.process.console import Terminal
from export.parity import compare
from runtimes import environment
from runtimes.clock import Timing
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.measure import evaluate, measure
from runtimes.target import Target

TIMING = Timing(warmup=10, blocks=25, runs_per_block=8)
TARGET = Target("bench", threads=1, batch=1)
TIMED_IMAGES = 8  # inputs of the timed runs, in turn
FLOAT32 = "float32"


@dataclass(frozen=True)
class Row:
    """One line of the table; values that do not apply are None."""

    model: str
    method: str
    speedup: float
    agreement: float
    sqnr_db: float | None
    top1: float | None
    top1_drop_pp: float | None
    latency_ms_p50: float
    quantize_s: float | None


# Columns in which larger is better: title, value, and number of digits for display and comparison.
COLUMNS: tuple[tuple[str, Callable[[Row], float | None], int], ...] = (
    ("speed", lambda row: row.speedup, 2),
    ("agree", lambda row: row.agreement, 3),
    ("dB", lambda row: row.sqnr_db, 1),
    ("top-1", lambda row: None if row.top1 is None else 100 * row.top1, 2),
)


def main() -> None:
    """Measure; print the table, the comparison and the JSON."""
    options = _options()
    rows: list[Row] = []
    with Terminal(FOLDER / "bench.log") as terminal:
        for name in options.models:
            try:
                rows += _rows(prepare(name, options.photos, options.judge, terminal), terminal)
            except UnavailableError as error:
                terminal.say(f"{name} skipped: {error}")
    print(f"{'model':<18} {'method':<28}{'speed':>6}{'agree':>7}{'dB':>6}{'top-1':>7}{'drop':>7}")
    for row in rows:
        print(_line(row))
    if not has_openvino():
        print(f"\nNo row '{OPENVINO}': OpenVINO is not installed (pip install openvino).")
    else:
        print(f"\nThe speed of '{OPENVINO}' is relative to float32 in ONNX Runtime, measured interleaved with it.")
    print(f"\nours / best other  {'speed':<11}{'agree':<13}{'dB':<11}{'top-1':<13}at least as good in all columns")
    for model in dict.fromkeys(row.model for row in rows):
        print(_comparison([row for row in rows if row.model == model]))
    machine = asdict(environment.describe())
    print(json.dumps({"rows": [asdict(row) for row in rows], "environment": machine}, allow_nan=False))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(names()), help="names, separated by commas; default: all")
    photos = Path(os.environ.get("PHOTOS") or PHOTOS)
    parser.add_argument("--photos", type=Path, default=photos, help="folder of photographs; default: $PHOTOS")
    parser.add_argument("--judge", type=Path, help="folder of more photographs, for evaluation only")
    options = parser.parse_args()
    options.models = options.models.split(",")
    unknown = sorted(set(options.models) - set(names()))
    if unknown:
        raise InputError(f"--models: unknown {', '.join(unknown)}; choose from {', '.join(names())}")
    return options


@dataclass(frozen=True)
class _Result:
    """A method's median latency, its logits (N, classes) of the evaluation images, and the duration of quantization."""

    method: str
    latency_ms_p50: float
    logits: npt.NDArray[np.float32]
    duration_s: float | None


def _rows(subject: Subject, terminal: Terminal) -> list[Row]:
    start = time.monotonic()
    files = quantize_all(subject, TARGET, terminal)
    artifacts = [subject.float32, *(file.artifact for file in files)]
    evaluation = Target("evaluation", threads=environment.describe().cores)
    logits = []
    for index, artifact in enumerate(artifacts):
        logits.append(evaluate(artifact, evaluation, subject.judged))
        terminal.progress(f"evaluate {subject.name}", index + 1, len(artifacts))
    measurements = measure(artifacts, TARGET, subject.judged.head(TIMED_IMAGES), TIMING, terminal)
    latencies = [float(np.median(measurement.latency_ms)) for measurement in measurements]
    baseline = _Result(FLOAT32, latencies[0], logits[0], None)
    results = [
        _Result(file.method, latency, answers, file.duration_s)
        for file, latency, answers in zip(files, latencies[1:], logits[1:], strict=True)
    ]
    rows = [_row(subject, baseline, result) for result in (baseline, *results)]
    if has_openvino():
        other = openvino(subject, TARGET, TIMING, terminal)
        baseline = replace(baseline, latency_ms_p50=float(np.median(other.float32_latency_ms)))
        result = _Result(OPENVINO, float(np.median(other.latency_ms)), other.logits, other.duration_s)
        rows.insert(-1, _row(subject, baseline, result))
    terminal.say(f"{subject.name}: {time.monotonic() - start:.0f} s")
    return rows


def _row(subject: Subject, baseline: _Result, result: _Result) -> Row:
    parity = compare(baseline.logits, result.logits)
    known = subject.labels != UNKNOWN
    labels = subject.labels[known]
    before, after = (float(np.mean(each.logits.argmax(1)[known] == labels)) for each in (baseline, result))
    return Row(
        model=subject.name,
        method=result.method,
        speedup=round(baseline.latency_ms_p50 / result.latency_ms_p50, 4),
        agreement=round(parity.agreement, 5),
        sqnr_db=None if parity.sqnr_db is None else round(parity.sqnr_db, 3),
        top1=round(after, 5) if known.any() else None,
        top1_drop_pp=round(100 * (before - after), 3) if known.any() and result.method != FLOAT32 else None,
        latency_ms_p50=round(result.latency_ms_p50, 4),
        quantize_s=None if result.duration_s is None else round(result.duration_s, 1),
    )


def _line(row: Row) -> str:
    cells = [_format(value(row), digits) for _, value, digits in COLUMNS]
    drop = "" if row.top1_drop_pp is None else f"{row.top1_drop_pp:+.2f}"
    model = row.model if row.method == FLOAT32 else ""
    return f"{model:<18} {row.method:<28}{cells[0]:>6}{cells[1]:>7}{cells[2]:>6}{cells[3]:>7}{drop:>7}".rstrip()


def _format(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _comparison(rows: list[Row]) -> str:
    """Return our values and the best of the other methods, and the methods at least as good in all columns."""
    ours = next(row for row in rows if row.method == OURS)
    peers = [row for row in rows if row.method not in (OURS, OURS_QAT, FLOAT32)]
    cells = []
    for (_, value, digits), width in zip(COLUMNS, (11, 13, 11, 13), strict=True):
        best = max(_rounded(value(peer), digits) for peer in peers)
        cells.append(f"{_format(value(ours), digits)}/{best:.{digits}f}".ljust(width))
    as_good = [
        peer.method
        for peer in peers
        if all(_rounded(value(peer), digits) >= _rounded(value(ours), digits) for _, value, digits in COLUMNS)
    ]
    return f"{ours.model:<18} {''.join(cells)}{', '.join(as_good) or 'none'}"


def _rounded(value: float | None, digits: int) -> float:
    """Return the value as displayed, minus infinity for None."""
    return -np.inf if value is None else round(value, digits)


if __name__ == "__main__":
    try:
        main()
    except CompressError as error:
        sys.exit(f"bench_quantize: {error}")
