"""The results table of the README: networks as float32, INT8 and pruned INT8 files, on the targets of this machine.

Each network is that of a recipe on the embedded solar cells. Its stage `train` alone gives the columns `float32` and
`INT8`; the whole recipe gives `pruned INT8`. Trained stages are shared and kept in the output folder, so that a second
call only prints. Targets: ONNX Runtime with one and with two threads, and OpenVINO if it is installed. The last line
is JSON with the figures of all cells.

    make bench-results
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from compress.process.table import Table, print_table
from compress.report import report
from runtimes import environment

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "runs" / "results"
NETWORKS = {
    "MobileNetV2": "mobilenet_int8",
    "MobileNetV3-Small": "mobilenet_v3_int8",
    "ResNet-18": "resnet18_pruned_int8",
}


@dataclass(frozen=True)
class Cell:
    """Figures of one file on one target."""

    network: str
    target: str
    file: str
    top1: float
    balanced_accuracy: float
    p50_ms: float
    megabytes: float


def main() -> None:
    """Run what is missing, then print the table and JSON."""
    targets = _targets()
    cells: list[Cell] = []
    for network, recipe in NETWORKS.items():
        content = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())
        content["targets"] = targets
        content.pop("gate", None)
        whole = _run(recipe, content)
        only_trained = _run(f"{recipe}-train", {**content, "stages": content["stages"][:1]})
        pruned = any(stage["stage"] == "prune" for stage in content["stages"])
        cells += _cells(network, {"float32": (only_trained, 0), "INT8": (only_trained if pruned else whole, -1)})
        if pruned:
            cells += _cells(network, {"pruned INT8": (whole, -1)})
    print_table(_table(cells))
    machine = environment.describe()
    print(f"{machine.cpu}, {machine.instruction_set}; one image at a time")
    print(json.dumps([asdict(cell) for cell in cells]))


def _targets() -> list[dict[str, Any]]:
    targets = [{"name": f"ort-{threads}-thread{'s' if threads > 1 else ''}", "runtime": "ort", "threads": threads}
               for threads in (1, 2)]  # fmt: skip
    if importlib.util.find_spec("openvino") is not None:
        targets.append({"name": "openvino-1-thread", "runtime": "openvino", "threads": 1})
    return targets


def _run(name: str, content: dict[str, Any]) -> report.Report:
    """Run a recipe in a process of its own, reusing finished steps; return its report."""
    OUT.mkdir(parents=True, exist_ok=True)
    path, folder = OUT / f"{name}.yaml", OUT / name
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    command = [sys.executable, "-m", "compress", "run", str(path), "--out", str(folder), "--cache", str(OUT / "cache")]
    print(f"compress run {path.relative_to(ROOT)}", file=sys.stderr)
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
    return report.read(folder)


def _cells(network: str, files: dict[str, tuple[report.Report, int]]) -> list[Cell]:
    """Return the figures of files: by column, a report and the position of the file's row in it."""
    cells = []
    for column, (content, position) in files.items():
        for target in content.targets:
            row = content.rows_of(target)[position]
            assert row.top1 is not None
            balanced = row.metrics["balanced_accuracy"]
            cells.append(Cell(network, target, column, row.top1, balanced, row.latency_ms_p50, row.size_bytes / 1e6))
    return cells


def _table(cells: list[Cell]) -> Table:
    """Return one row per network and target: top-1, p50 and size of each file."""
    columns = ("float32", "INT8", "pruned INT8")
    by_place: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        by_place.setdefault((cell.network, cell.target), {})[cell.file] = cell
    rows = [
        (network, target, *(_shown(files.get(column)) for column in columns))
        for (network, target), files in by_place.items()
    ]
    return Table.of("top-1 %, p50 ms, MB", "<network|<target|" + "|".join(columns), rows)


def _shown(cell: Cell | None) -> str:
    return f"{100 * cell.top1:.1f}, {cell.p50_ms:.2f}, {cell.megabytes:.2f}" if cell else ""


if __name__ == "__main__":
    main()
