"""Benchmark of `compress quantize` on many networks: does any ONNX file become INT8, or is it refused in one line?

Each network of `onnx_networks` is trained once and exported by both exporters of PyTorch, with dynamic and with fixed
batch. `compress quantize` makes an INT8 file of each form, except of those whose standard form has the same structure
as one before it. Each file is compared with float32 on images that were not used for calibration. The first one is
also compared with the file of ONNX Runtime's quantizer (U8S8, per channel, same images). Every step is a process of its
own with limits of memory and time. Exceeding a limit is a crash.

outcome     right: top-1 at most 1 point below float32; for files without labels, an agreement of at least 0.95.
            refused: exit code 2 or 3, no file, no traceback. wrong: a file that is not right. crashed: anything else.
            The worst outcome of the forms counts. Networks that PyTorch cannot export, and files that are not
            installed, are listed but not counted.
agree       share of images with float32's class; of detectors the mAP of boxes, of masks the share of equal pixels
dB          signal-to-noise ratio of the outputs
speed       float32 p50 / INT8 p50 in ONNX Runtime, one thread, batch 1; the files are interleaved in one process
ORT         the same three values for ONNX Runtime's quantizer
top-1       of float32 in %, and the change by INT8 in points
s, MiB      seconds of CPU time and peak memory of `compress quantize`, the largest of the forms

Rows are stored in runs/bench_onnx/results.jsonl as they come. The same command continues where it was stopped and
measures only what has no row; --again repeats networks. Trained weights are kept. The last line is JSON: the number of
networks and of each outcome, of networks whose dB is at least that of ONNX Runtime's file, and of networks that are
more than 5 % slower than that file at equal agreement.

    make bench-onnx [PHOTOS=FOLDER] [FILES=FOLDER]
    python tests/bench/bench_onnx.py --networks resnet18,vit_tiny_patch16_224 --again
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import resumable
from onnx_networks import NETWORKS, ROOT, File, Network, Trained
from onnx_processes import HERE, Ended, Limits, Processes
from onnx_rows import HEADER, OUTCOMES, Row, fill, line, outcome_of, summary, verdict

FOLDER = ROOT / "runs/bench_onnx"
PREPARING, QUANTIZING, JUDGING = Limits(900, 12), Limits(600, 4), Limits(600, 12)


@dataclass(frozen=True)
class Bench:
    """Settings of a run of the benchmark. files: folder of unpacked packages with trained files."""

    folder: Path
    files: Path | None
    time_scale: float
    processes: Processes

    def row(self, network: Network) -> Row:
        """Return the row of a network; its ONNX files are deleted if it is right."""
        start = time.monotonic()
        folder = self._folder_of(network)
        folder.mkdir(parents=True, exist_ok=True)
        row = Row(network.name, network.kind, "right", commit=_commit())
        forms = self._exported(network, row) if isinstance(network, Trained) else self._installed(network, row)
        if forms and self._has_images(network, row):
            for form, path in forms.items():
                self._add_form(row, network, form, path)
        row.duration_s = round(time.monotonic() - start, 1)
        if row.outcome == "right":
            for path in folder.glob("*.onnx*"):
                path.unlink()
        return row

    def _folder_of(self, network: Network) -> Path:
        return self.folder / network.name.replace("/", "-")

    def _run(self, row: Row, command: list[str], log: Path, limits: Limits) -> Ended:
        ended = self.processes.run(command, log, limits.scaled(self.time_scale))
        row.cpu_s = round(row.cpu_s + ended.cpu_s, 1)
        return ended

    def _exported(self, network: Trained, row: Row) -> dict[str, Path]:
        """Return the distinct forms of a network; note the others in its row."""
        folder = self._folder_of(network)
        (folder / "forms.json").unlink(missing_ok=True)
        command = [str(HERE / "onnx_export.py"), network.name, str(folder), str(self.folder / "images")]
        ended = self._run(row, command, folder / "export.log", PREPARING)
        described = json.loads((folder / "forms.json").read_text()) if (folder / "forms.json").exists() else {}
        forms = {}
        for form, entry in described.items():
            if "failed" in entry:
                row.forms[form] = f"not exported: {entry['failed']}"
            elif "twin" in entry:
                row.forms[form] = f"same as {entry['twin']}"
            else:
                forms[form] = folder / f"{form}.onnx"
        if not forms:
            row.outcome, row.message = "not exported", next(iter(row.forms.values()), ended.message)
        return forms

    def _installed(self, network: File, row: Row) -> dict[str, Path]:
        path = network.find(self.files)
        if path is None:
            row.outcome, row.message = "not installed", f"needs {network.package or network.path}"
            return {}
        return {"file": path}

    def _has_images(self, network: Network, row: Row) -> bool:
        """Return whether there are images of a network's domain; write them on first use."""
        command = [str(HERE / "onnx_images.py"), str(self.folder / "images"), network.domain, *map(str, network.size)]
        ended = self._run(row, command, self._folder_of(network) / "images.log", PREPARING)
        if ended.code != 0:
            row.outcome, row.message = "not installed", ended.last_line
        return ended.code == 0

    def _add_form(self, row: Row, network: Network, form: str, path: Path) -> None:
        """Quantize and judge a form; the row keeps the worst outcome, and the figures of the first form."""
        folder = self._folder_of(network)
        out = folder / f"{form}-int8.onnx"
        out.unlink(missing_ok=True)
        calibration = self.folder / "images" / network.images_name / "calibration"
        command = ["-m", "compress", "quantize", str(path), "--calibration", str(calibration),
                   *network.options(), "-o", str(out)]  # fmt: skip
        ended = self._run(row, command, folder / f"{form}-quantize.log", QUANTIZING)
        row.quantize_s = round(max(row.quantize_s or 0.0, ended.duration_s), 1)
        row.quantize_cpu_s = round(max(row.quantize_cpu_s or 0.0, ended.cpu_s), 1)
        row.peak_mib = max(row.peak_mib or 0, ended.peak_mib)
        outcome, message = outcome_of(ended, out)
        if outcome == "right":
            outcome, message = self._judge(row, network, path, out)
        row.forms[form] = f"{outcome}: {message}"
        if OUTCOMES.index(outcome) > OUTCOMES.index(row.outcome):
            row.outcome, row.message = outcome, f"{form}: {message}"

    def _judge(self, row: Row, network: Network, path: Path, out: Path) -> tuple[str, str]:
        """Return the outcome and message of an INT8 file; fill in the figures of the row if it has none."""
        result = out.with_suffix(".json")
        result.unlink(missing_ok=True)
        is_first = row.sqnr_db is None
        command = [str(HERE / "onnx_judge.py"), network.name, str(path), str(out), str(self.folder / "images"),
                   str(result), *(["--ort"] if is_first else [])]  # fmt: skip
        ended = self._run(row, command, out.with_suffix(".log"), JUDGING)
        if ended.code != 0:
            return "crashed", f"the INT8 file cannot be judged, {ended.message}"
        figures = json.loads(result.read_text())
        if is_first:
            fill(row, figures)
        return verdict(figures)


def _commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()


def main() -> None:
    """Measure what has no row yet; print the table and the JSON."""
    parser = resumable.parser_for(__doc__ or "", FOLDER, NETWORKS)
    parser.add_argument("--files", type=Path, default=os.environ.get("FILES") or None,
                        help="folder of unpacked packages with trained files; default: $FILES")  # fmt: skip
    options, processes, start = resumable.parsed(parser, NETWORKS), Processes(), time.monotonic()
    bench = Bench(options.folder, options.files, options.time_scale, processes)
    table = resumable.Table(Row, HEADER, line)
    rows = resumable.rows_of(options, table, lambda name: bench.row(NETWORKS[name]), processes)
    print(summary(rows, time.monotonic() - start))


if __name__ == "__main__":
    resumable.stoppable(main)
