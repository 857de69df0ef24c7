"""Benchmark of `compress quantize` on trained files of others, with images of their own domain.

Each file is quantized with half of the images, and judged on the others by `onnx_judge`. A bar is met by an agreement
of at least 0.98 (detectors: a mAP of at least 0.95 against the boxes of float32) and a speed-up above 1. Files of other
kinds (characters, masks) are reported, but have no bar.

Files are looked for in FILES, a folder of unpacked packages and files, then in installed packages, then in
../shared/models. What is missing is listed and not counted. FACES is a folder of photographs of people, for detectors;
PHOTOS of any photographs. The last line is JSON.

    make bench-real-onnx [FILES=FOLDER] [FACES=FOLDER] [PHOTOS=FOLDER]
    python tests/bench/bench_real_onnx.py --networks ultraface_rfb_320
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from bench_onnx import Bench
from onnx_networks import FILES, NETWORKS, ROOT, File
from onnx_processes import Processes
from onnx_rows import HEADER, Row, line

FOLDER = ROOT / "runs/bench_real_onnx"
BARS = {"classes": 0.98, "boxes": 0.95}  # of the agreement, by answers


def main() -> None:
    """Measure all files, print a row for each and the JSON."""
    options = _arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    processes = Processes()
    bench = Bench(options.folder, options.files, options.time_scale, processes)
    outcomes: dict[str, list[str]] = {"met": [], "missed": [], "no bar": [], "not installed": []}
    print(f"{HEADER}: outcome of the bar", flush=True)
    try:
        for name in options.networks:
            network = NETWORKS[name]
            assert isinstance(network, File)
            row = bench.row(network)
            outcome = outcome_of(row, BARS.get(network.answers))
            outcomes[outcome].append(name)
            print(f"{line(row)}: {outcome}", flush=True)
    finally:
        processes.stop()
    print(json.dumps({outcome.replace(" ", "_"): names for outcome, names in outcomes.items()}))


def outcome_of(row: Row, bar: float | None) -> str:
    """Return whether a row meets the bar, or why it has none."""
    if row.outcome == "not installed":
        return row.outcome
    if bar is None and row.outcome == "right":
        return "no bar"
    is_met = row.agreement is not None and row.speedup is not None and row.agreement >= (bar or 0) and row.speedup > 1
    return "met" if is_met and row.outcome == "right" else "missed"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [file.name for file in FILES]
    parser.add_argument("--networks", type=lambda text: text.split(","), default=names,
                        help=f"names, separated by commas; default: {','.join(names)}")  # fmt: skip
    parser.add_argument("--files", type=Path, default=os.environ.get("FILES") or None,
                        help="folder of unpacked packages and files; default: $FILES")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for images and logs")
    parser.add_argument("--time-scale", type=float, default=1.0, help="factor of the limits of time")
    options = parser.parse_args()
    unknown = set(options.networks) - set(names)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    main()
