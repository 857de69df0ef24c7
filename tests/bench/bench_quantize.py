"""INT8 of ONNX Runtime, NNCF (in ONNX Runtime, and in OpenVINO where it is installed) and ours: speed and accuracy.

For each network a float32 file is quantized in every way on the same calibration images, for this machine's processor.
speed: float32 p50 / INT8 p50, one thread, batch 1, all files of a network interleaved in blocks in one process. agree:
share of images with float32's answer; dB: signal-to-noise ratio of the logits, both on images that were not calibrated
on. top-1 in % and drop in percentage points, on those whose class is known: 20 for efficientnet_lite0, 654 for the
others. `quantize_networks` says what the networks and images are, `quantize_peers` what is compared.

"ours, after qat" went on training with rounded weights for 4 epochs; the others are compared with "ours" alone.

The last line is JSON, for programs. The networks are trained once, which takes some 20 minutes on two cores (ResNet-18
for 8 epochs only), and are kept in runs/bench_quantize. After that a run takes some 12 minutes.

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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from quantize_networks import FOLDER, PHOTOS, UNKNOWN, Subject, names, prepare
from quantize_peers import OPENVINO, OURS, OURS_QAT, has_openvino, make_all, openvino

from compress.process.console import Terminal
from export.parity import compare
from runtimes import environment
from runtimes.clock import Timing
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.measure import evaluate, measure
from runtimes.target import Target

TIMING = Timing(warmup=10, blocks=25, runs_per_block=8)
TARGET = Target("bench", threads=1, batch=1)
TIMED_IMAGES = 8  # the clock runs on these in turn
FLOAT32 = "float32"


@dataclass(frozen=True)
class Row:
    """One line of the table; what a row can't have is None."""

    model: str
    who: str
    speedup: float
    agreement: float
    sqnr_db: float | None
    top1: float | None
    top1_drop_pp: float | None
    latency_ms_p50: float
    quantize_s: float | None


# Of the columns in which more is better: title, value, and digits to which two rows are compared and shown.
COLUMNS: tuple[tuple[str, Callable[[Row], float | None], int], ...] = (
    ("speed", lambda row: row.speedup, 2),
    ("agree", lambda row: row.agreement, 3),
    ("dB", lambda row: row.sqnr_db, 1),
    ("top-1", lambda row: None if row.top1 is None else 100 * row.top1, 2),
)


def main() -> None:
    """Measure, print the table, the comparison and the JSON."""
    options = _options()
    rows: list[Row] = []
    with Terminal(FOLDER / "bench.log") as terminal:
        for name in options.models:
            try:
                rows += _rows(prepare(name, options.photos, options.judge, terminal), terminal)
            except UnavailableError as error:
                terminal.say(f"{name} is left out: {error}")
    print(f"{'model':<18} {'who':<28}{'speed':>6}{'agree':>7}{'dB':>6}{'top-1':>7}{'drop':>7}")
    for row in rows:
        print(_line(row))
    if not has_openvino():
        print(f"\nThe row '{OPENVINO}' is left out: OpenVINO is not installed (pip install openvino).")
    else:
        print(f"\n'{OPENVINO}' was interleaved with float32 in ONNX Runtime by itself, and that is its 1.00.")
    print(f"\nours / best peer   {'speed':<11}{'agree':<13}{'dB':<11}{'top-1':<13}in no column worse than ours")
    for model in dict.fromkeys(row.model for row in rows):
        print(_comparison([row for row in rows if row.model == model]))
    machine = asdict(environment.describe())
    print(json.dumps({"rows": [asdict(row) for row in rows], "environment": machine}, allow_nan=False))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(names()), help="names, with commas between them; all by default")
    photos = Path(os.environ.get("PHOTOS") or PHOTOS)
    parser.add_argument("--photos", type=Path, default=photos, help="folder of photographs; or the variable PHOTOS")
    parser.add_argument("--judge", type=Path, help="folder of more photographs, to judge on only")
    options = parser.parse_args()
    options.models = options.models.split(",")
    unknown = sorted(set(options.models) - set(names()))
    if unknown:
        raise InputError(f"--models: there is no {', '.join(unknown)}; there are {', '.join(names())}")
    return options


def _rows(subject: Subject, terminal: Terminal) -> list[Row]:
    start = time.monotonic()
    made = make_all(subject, TARGET, terminal)
    judge = Target("judge", threads=environment.describe().cores)
    artifacts = [subject.float32, *(one.artifact for one in made)]
    seconds = [None, *(one.duration_s for one in made)]
    logits = []
    for index, artifact in enumerate(artifacts):
        logits.append(evaluate(artifact, judge, subject.judged))
        terminal.progress(f"judge {subject.name}", index + 1, len(artifacts))
    measured = measure(artifacts, TARGET, subject.judged.head(TIMED_IMAGES), TIMING, terminal)
    milliseconds = [float(np.median(one.latency_ms)) for one in measured]
    rows = [
        _row(subject, who, milliseconds[0], p50, logits[0], answers, taken)
        for who, p50, answers, taken in zip(
            (FLOAT32, *(one.who for one in made)), milliseconds, logits, seconds, strict=True
        )
    ]
    if has_openvino():
        other = openvino(subject, TARGET, TIMING, terminal)
        base, p50 = (float(np.median(latency)) for latency in (other.float32_latency_ms, other.latency_ms))
        rows.insert(-1, _row(subject, OPENVINO, base, p50, logits[0], other.logits, other.duration_s))
    terminal.say(f"{subject.name}: {time.monotonic() - start:.0f} s")
    return rows


def _row(
    subject: Subject,
    who: str,
    float32_ms: float,
    p50_ms: float,
    reference: npt.NDArray[np.float32],
    answers: npt.NDArray[np.float32],
    seconds: float | None,
) -> Row:
    parity = compare(reference, answers)
    known = subject.labels != UNKNOWN
    right = [float(np.mean(given.argmax(1)[known] == subject.labels[known])) for given in (reference, answers)]
    return Row(
        model=subject.name,
        who=who,
        speedup=round(float32_ms / p50_ms, 4),
        agreement=round(parity.agreement, 5),
        sqnr_db=None if parity.sqnr_db is None else round(parity.sqnr_db, 3),
        top1=round(right[1], 5) if known.any() else None,
        top1_drop_pp=round(100 * (right[0] - right[1]), 3) if known.any() and who != FLOAT32 else None,
        latency_ms_p50=round(p50_ms, 4),
        quantize_s=None if seconds is None else round(seconds, 1),
    )


def _line(row: Row) -> str:
    shown = [_shown(value(row), digits) for _, value, digits in COLUMNS]
    drop = "" if row.top1_drop_pp is None else f"{row.top1_drop_pp:+.2f}"
    model = row.model if row.who == FLOAT32 else ""
    return f"{model:<18} {row.who:<28}{shown[0]:>6}{shown[1]:>7}{shown[2]:>6}{shown[3]:>7}{drop:>7}".rstrip()


def _shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _comparison(rows: list[Row]) -> str:
    """Return ours against the best peer of each column, and the peers that are as good or better in all columns."""
    ours = next(row for row in rows if row.who == OURS)
    peers = [row for row in rows if row.who not in (OURS, OURS_QAT, FLOAT32)]
    cells = []
    for (_, value, digits), width in zip(COLUMNS, (11, 13, 11, 13), strict=True):
        best = max(_rounded(value(peer), digits) for peer in peers)
        cells.append(f"{_shown(value(ours), digits)}/{best:.{digits}f}".ljust(width))
    as_good = [
        peer.who
        for peer in peers
        if all(_rounded(value(peer), digits) >= _rounded(value(ours), digits) for _, value, digits in COLUMNS)
    ]
    return f"{ours.model:<18} {''.join(cells)}{', '.join(as_good) or 'none'}"


def _rounded(value: float | None, digits: int) -> float:
    """Return the number as it is shown; where there is none, one below all."""
    return -np.inf if value is None else round(value, digits)


if __name__ == "__main__":
    try:
        main()
    except CompressError as error:
        sys.exit(f"bench_quantize: {error}")
