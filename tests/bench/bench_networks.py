"""Benchmark of whole recipes on many networks: is any network trained, pruned, quantized and shipped?

Each network of timm or torchvision runs a recipe on small synthetic images, with random weights: two training steps,
pruning to half of the multiplications, two steps of distillation, fusion of its branches, two steps of QAT, export,
agreement with PyTorch, INT8. Then its last network is loaded from the run folder and compared with the exported file,
the INT8 file is bundled, and the bundle verifies itself. Every command is a process of its own with limits of memory
and time. A network whose pruning is refused is run again without that stage.

outcome     whole pipeline, without pruning, refused (exit code 2 or 3 in one line), or failed: anything else
step        the first step that fails, and why
MMACs       of the training form, and the share that pruning left, if the plan has it
layers      that are fused, before and after
s, MiB      seconds of CPU time and peak memory of the run

Rows are stored in runs/bench_networks/results.jsonl as they come. The same command continues where it was stopped and
runs only what has no row; --again repeats networks or outcomes. The last line is JSON: the number of networks and of
each outcome.

    make bench-networks
    python tests/bench/bench_networks.py --networks repvit_m0_9,shufflenet_v2_x1_0 --again
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import resumable
import yaml
from onnx_processes import HERE, ROOT, Ended, Limits, Processes

FOLDER = ROOT / "runs/bench_networks"
CODE = HERE / "torchvision_networks.py"
RUNNING, CHECKING = Limits(1800, 12), Limits(300, 8)
REFUSALS = (2, 3)  # exit codes
OUTCOMES = ("whole_pipeline", "without_pruning", "refused", "failed")
SIDE = 64
LARGER = {"inception_v3": 96}  # sides of images for networks that take no smaller ones
OF_TIMM = (
    "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small",
    "mobilenetv4_hybrid_medium", "mnasnet_small", "efficientnet_b0", "efficientnet_lite0", "efficientnetv2_rw_s",
    "fbnetc_100", "lcnet_050", "tinynet_e", "hardcorenas_a", "ghostnet_100", "ghostnetv2_100", "repghostnet_050",
    "mobileone_s0", "repvgg_a0", "repvit_m0_9", "starnet_s1", "resnet18", "resnet50", "resnet18d", "resnext50_32x4d",
    "seresnet18", "ecaresnet26t", "regnetx_002", "regnety_002", "densenet121", "dla34", "ese_vovnet19b_dw",
    "cspresnet50", "hgnetv2_b0", "convnext_atto", "edgenext_xx_small", "fastvit_t8", "mobilevit_xxs",
    "efficientvit_b0", "efficientvit_m0", "inception_v3",
)  # fmt: skip
OF_TORCHVISION = (
    "squeezenet1_1", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "googlenet", "mnasnet0_5", "efficientnet_v2_s",
)  # fmt: skip
NETWORKS = (*OF_TIMM, *OF_TORCHVISION)


@dataclass
class Row:
    """Result of one network. step: the first that failed, with its message; empty if none did."""

    network: str
    outcome: str
    step: str = ""
    message: str = ""
    share: float | None = None
    layers_before: int | None = None
    layers_after: int | None = None
    cpu_s: float = 0.0
    peak_mib: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True)
class Bench:
    """Settings of a run of the benchmark."""

    folder: Path
    time_scale: float
    processes: Processes

    def row(self, network: str) -> Row:
        """Return the row of a network; the folder of one that fails stays."""
        start = time.monotonic()
        row = Row(network, "failed")
        if not self._completes(row, prunes=True) and row.outcome == "refused" and row.message.startswith("prune:"):
            reason = row.message
            row.step, row.message = "", ""
            if self._completes(row, prunes=False):
                row.outcome, row.message = "without_pruning", reason
        row.duration_s = round(time.monotonic() - start, 1)
        if row.outcome in OUTCOMES[:2]:
            shutil.rmtree(self.folder / network)
        return row

    def _completes(self, row: Row, prunes: bool) -> bool:
        folder = self.folder / row.network
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        recipe, run = folder / f"{row.network}.yaml", folder / "run"
        recipe.write_text(yaml.safe_dump(recipe_of(row.network, prunes), sort_keys=False))
        bundle, board = folder / "bundle.tar", folder / "board"
        code = [] if row.network in OF_TIMM else [str(CODE)]
        options = ["--code", *code] if code else []
        commands = {
            "": ["-m", "compress", "run", str(recipe), "--out", str(run), *options, "--quiet"],
            "load": [str(HERE / "networks_check.py"), str(recipe), str(run), *code],
            "bundle": ["-m", "compress", "bundle", str(run), "-o", str(bundle)],
            "unpack": ["-m", "tarfile", "-e", str(bundle), str(board)],
            "verify": [str(board / "run.pyz"), "verify"],
        }
        for step, command in commands.items():
            limits = CHECKING if step else RUNNING
            log = folder / f"{step or 'run'}.log"
            ended = self.processes.run(command, log, limits.scaled(self.time_scale))
            row.cpu_s = round(row.cpu_s + ended.cpu_s, 1)
            row.peak_mib = max(row.peak_mib, ended.peak_mib)
            if not step:
                _fill(row, run)
            if ended.code != 0:
                row.step, row.outcome = step or running_step(run), _outcome(ended)
                row.message = _message(ended) if row.outcome == "refused" else ended.message
                return False
        row.outcome = "whole_pipeline"
        return True


def recipe_of(network: str, prunes: bool) -> dict[str, Any]:
    """Return the content of a network's recipe."""
    side = LARGER.get(network, SIDE)
    arch = "timm" if network in OF_TIMM else f"{CODE.stem}:build"
    fit = {"epochs": 1, "batch_size": 12, "warmup_epochs": 0}  # two steps: 24 of 40 images are for training
    stages: list[dict[str, Any]] = [
        {"stage": "train", **fit},
        {"stage": "prune", "macs": 0.5, "importance": "l2"},
        {"stage": "distill", **fit},
        {"stage": "qat", **fit},
    ]
    return {
        "data": {"name": "synthetic", "classes": 4, "images_per_class": 10, "size": side},
        "preprocessing": {"resize": side, "crop": side, "interpolation": "bilinear"},
        "model": {"arch": arch, "name": network},
        "stages": [stage for stage in stages if prunes or stage["stage"] != "prune"],
        "quantize": {"method": "compress", "calibration_images": 16},
        "targets": [{"name": "this-cpu", "runtime": "ort", "threads": 1}],
        "timing": {"warmup": 1, "blocks": 10, "runs_per_block": 1},
    }


def running_step(run: Path) -> str:
    """Return the name of the step that did not finish; `recipe` if none began."""
    steps = sorted((run / "steps").glob("*"), key=lambda path: path.stat().st_mtime) if run.exists() else []
    unfinished = [path.name.rpartition("-")[0] for path in steps if not (path / "done.json").exists()]
    return unfinished[-1] if unfinished else "report" if steps else "recipe"


def _outcome(ended: Ended) -> str:
    is_traceback = "Traceback (most recent call last)" in ended.output
    return "refused" if ended.code in REFUSALS and not is_traceback else "failed"


def _message(ended: Ended) -> str:
    return ended.last_line.removeprefix("compress: ").removeprefix("error: ")[:400]


def _fill(row: Row, run: Path) -> None:
    """Write what the steps of a run say of fusion and pruning into the row."""
    for path in run.glob("steps/fuse-*/fusion.json"):
        content = json.loads(path.read_text())
        row.layers_before, row.layers_after = content["layers_before"], content["layers_after"]
    for path in run.glob("steps/1-prune-*/plan-1.json"):
        row.share = round(json.loads(path.read_text())["predicted"], 3)


HEADER = f"{'network':<28}{'outcome':<17}{'MACs':>6}{'layers':>11}{'s':>7}{'MiB':>7}  step"


def line(row: Row) -> str:
    """Return a row of the table."""
    share = "" if row.share is None else f"{row.share:.2f}"
    layers = "" if row.layers_before is None else f"{row.layers_before} > {row.layers_after}"
    problem = ": ".join(filter(None, (row.step, row.message)))
    cells = f"{row.network:<28}{row.outcome.replace('_', ' '):<17}{share:>6}{layers:>11}{row.cpu_s:>7.0f}"
    return f"{cells}{row.peak_mib:>7}  {problem}".rstrip()


def summary(rows: list[Row]) -> str:
    """Return the last line."""
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in OUTCOMES}
    return json.dumps({"networks": len(rows), **counts})


def main() -> None:
    """Run what has no row yet; print the table and the JSON."""
    options = resumable.parsed(resumable.parser_for(__doc__ or "", FOLDER, NETWORKS), NETWORKS)
    processes = Processes()
    bench = Bench(options.folder, options.time_scale, processes)
    print(summary(resumable.rows_of(options, resumable.Table(Row, HEADER, line), bench.row, processes)))


if __name__ == "__main__":
    resumable.stoppable(main)
