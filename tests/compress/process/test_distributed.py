"""Several processes train as one does with the same batches, and outlive the loss of one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.networks import checkpoint
from compress.process import distributed
from runtimes.errors import InputError

ROOT = Path(__file__).parents[3]
WORKER = ROOT / "tests/support/parallel_worker.py"
TOLERANCE = 2e-5  # of float32 sums in another order, after some 30 steps

PLAIN = {
    "epochs": 3, "batch_size": 9, "optimizer": "sgd", "lr": 0.02, "warmup_epochs": 1, "weight_decay": 0.01,
    "augment": {"hflip": True, "vflip": True},
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "norms": {**PLAIN, "sync_batchnorm": True},
    "no-norms": {**PLAIN, "norm": False},
    "parts": {**PLAIN, "norm": False, "accumulate": 2, "clip_norm": 0.5},
    "averaged": {**PLAIN, "sync_batchnorm": True, "ema_decay": 0.9},
    "crops": {**PLAIN, "norm": False, "workers": 1, "augment": {"crop_scale": [0.5, 1.0]}, "resize_from": 16},
}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def torchrun(*arguments: object, processes: int = 2) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0",
               "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]  # fmt: skip
    return [*command, *map(str, arguments)]


def train(folder: Path, processes: int) -> None:
    folder.mkdir()
    arguments = [str(WORKER), str(folder), json.dumps(SETTINGS)]
    command = torchrun(*arguments, processes=processes) if processes > 1 else [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("parallel")
    for name, processes in (("alone", 1), ("two", 2)):
        train(folder / name, processes)
    return folder / "alone", folder / "two"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load_tensors(folder / checkpoint.WEIGHTS_FILE)[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_train_to_the_weights_of_one(trained: tuple[Path, Path], name: str) -> None:
    alone, two = trained
    one, first, second = (tensors(path) for path in (alone / name / "0", two / name / "0", two / name / "1"))
    start = max(float(tensor.abs().max()) for tensor in one.values())
    assert start > 0.1
    for key in one:
        torch.testing.assert_close(first[key], one[key], atol=TOLERANCE, rtol=TOLERANCE)
        if "running" not in key:
            assert torch.equal(first[key], second[key])


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_write_the_history_of_one(trained: tuple[Path, Path], name: str) -> None:
    one, both = (json.loads((folder / name / "history.json").read_text()) for folder in trained)
    assert [line["epoch"] for line in both] == [1, 2, 3]
    for mine, theirs in zip(one, both, strict=True):
        assert theirs["lr"] == mine["lr"]
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], abs=1e-4)
        assert theirs["val"]["loss"] == pytest.approx(mine["val"]["loss"], abs=1e-4)
        assert theirs["val"]["images"] == mine["val"]["images"]


RECIPE = """
data: {name: synthetic, classes: 3, images_per_class: 20, size: 32, noise: 8}
preprocessing: {resize: 32, crop: 32, interpolation: bilinear, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
model: {arch: mobilenet_v2, width: 0.25}
stages:
  - {stage: train, epochs: 12, batch_size: 12, optimizer: sgd, lr: 0.05, augment: {crop_scale: [0.5, 1.0]}, workers: 1}
targets: [{name: here, runtime: ort, threads: 1}]
timing: {warmup: 1, blocks: 2, runs_per_block: 2}
"""


def start(recipe: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = torchrun(*options, "-m", "compress", "run", recipe, "--out", out)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    )


def wait_for_epoch(process: subprocess.Popen[str], out: Path, epoch: int) -> None:
    while process.poll() is None:
        histories = [*out.glob("steps/0-train-*/history.json")]
        if histories and len(json.loads(histories[0].read_text())) >= epoch:
            return
        time.sleep(0.05)
    pytest.fail(f"epoch {epoch} did not come: {process.communicate()}")


def children(process: subprocess.Popen[str]) -> list[int]:
    return sorted(int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


def weights(out: Path) -> bytes:
    (path,) = out.glob("steps/0-train-*/network.safetensors")
    return path.read_bytes()


@pytest.mark.slow  # torchrun starts twice
def test_a_killed_process_is_started_again_and_the_weights_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    undisturbed = start(tmp_path / "recipe.yaml", tmp_path / "whole")
    killed = start(tmp_path / "recipe.yaml", tmp_path / "killed", "--max-restarts=1")
    wait_for_epoch(killed, tmp_path / "killed", 2)
    os.kill(children(killed)[1], signal.SIGKILL)
    said = killed.communicate()[1]
    assert killed.returncode == 0, said
    assert "resumed after" in said
    assert (tmp_path / "killed" / "report.json").exists()
    assert undisturbed.communicate()[1]
    assert undisturbed.returncode == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_sigterm_ends_all_processes_behind_a_written_state(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("epochs: 12", "epochs: 2000"))
    ended = start(tmp_path / "recipe.yaml", tmp_path / "run")
    wait_for_epoch(ended, tmp_path / "run", 1)
    ended.send_signal(signal.SIGTERM)
    said = ended.communicate()[1]
    assert ended.returncode != 0
    assert "terminated; run the same command again to resume after" in said, said
    assert [*(tmp_path / "run").glob("steps/0-train-*/training-state.safetensors")]


def test_one_process_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # of a cluster that started one process
    with distributed.process_group():
        assert (distributed.rank(), distributed.world_size(), distributed.is_first()) == (0, 1, True)
        assert distributed.from_first(lambda: (1, "x")) == (1, "x")
        assert distributed.any_of(True)
        assert not distributed.any_of(False)


def test_a_folder_that_is_not_shared_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not visible to process 0; choose a folder with --out"):
        distributed.require_shared(tmp_path / "run.json")


EVERY_STAGE = """
data: {name: synthetic, classes: 3, images_per_class: 80, size: 32, noise: 8}
preprocessing: {resize: 32, crop: 32, interpolation: bilinear, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
model: {arch: mobilenet_v2, width: 0.25}
stages:
  - {stage: train, epochs: 10, batch_size: 12, lr: 0.01, warmup_epochs: 2, sync_batchnorm: true,
     augment: {hflip: false}}
  - {stage: prune, latency: 0.8, precision: float32, most_pruned: 0.5, step: 1, rounds: 2,
     fine_tune: {epochs: 1, batch_size: 12, warmup_epochs: 0, sync_batchnorm: true, augment: {hflip: false}}}
  - {stage: distill, epochs: 4, batch_size: 12, warmup_epochs: 0, sync_batchnorm: true, augment: {hflip: false}}
  - {stage: qat, epochs: 1, batch_size: 12, augment: {hflip: false}}
quantize: {method: compress, calibration_images: 32}
targets: [{name: here, runtime: ort, threads: 1}]
timing: {warmup: 1, blocks: 2, runs_per_block: 2}
"""


@pytest.mark.slow
def test_every_stage_runs_in_two_processes(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(EVERY_STAGE)
    said = start(tmp_path / "recipe.yaml", tmp_path / "run").communicate()[1]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    accuracies = {row["precision"]: row["top1"] for row in report["rows"][1:]}
    assert len(accuracies) == 2, said
    assert min(accuracies.values()) >= 0.8
    again = start(tmp_path / "recipe.yaml", tmp_path / "run")
    assert "epoch" not in again.communicate()[1]
    assert again.returncode == 0
