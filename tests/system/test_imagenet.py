"""A made ImageNet as it is fetched goes the whole road: checked, sharded, trained on, pruned, distilled, quantized."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_imagenet import SYNSETS, TRUNCATED, in_tars, make_images

ROOT = Path(__file__).parents[2]
NAMES = ["n01440764 tench", "n02105855 Shetland sheepdog", "n03026506 Christmas stocking"]
RECIPE = """
data: {name: imagenet, root: ROOT, val_per_class: 6}
preprocessing: {resize: 36, crop: 32, interpolation: bilinear, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
model: {arch: mobilenet_v2, width: 0.25, dropout: 0}
max_unreadable_images: 0.05
stages:
  - {stage: train, epochs: 7, batch_size: 12, lr: 0.01, warmup_epochs: 1, label_smoothing: 0, repeats: 2,
     augment: {hflip: false, crop_scale: [0.7, 1.0], policy: trivialaugment, erase: 0.1, mixup: 0.1}, ema_decay: 0.9}
  - {stage: prune, macs: 0.7, step: 1}
  - {stage: distill, epochs: 3, batch_size: 12, warmup_epochs: 0,
     augment: {hflip: false, crop_scale: [0.7, 1.0]}, teacher: {network: baseline}}
  - {stage: qat, epochs: 1, batch_size: 12, augment: {hflip: false}}
quantize: {method: compress, calibration_images: 32}
targets: [{name: this-cpu, runtime: ort, threads: 1}]
timing: {warmup: 1, blocks: 3, runs_per_block: 5}
"""


def call(folder: Path, *arguments: object) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "compress", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    in_tars(folder / "official", make_images(images_per_class=60, val_per_class=40, size=40, noise=6))
    call(folder, "data", "shard", folder / "official", folder / "shards", "--images-per-shard", 50)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    (folder / "recipe.yaml").write_text(RECIPE.replace("ROOT", str(folder / "shards")))
    call(folder, "run", folder / "recipe.yaml", "--out", folder / "run")
    return folder / "run"


def test_check_tells_what_is_there(folder: Path) -> None:
    found = json.loads(call(folder, "data", "check", folder / "official", "--json"))
    assert found["counts"] == {"train": dict.fromkeys(SYNSETS, 60), "val": dict.fromkeys(SYNSETS, 40)}
    assert {name for name, _ in found["unreadable"]} == set(TRUNCATED)
    assert len(found["cmyk"]) == 4
    assert found["problems"] == []


def test_check_prints_tables_and_names(folder: Path) -> None:
    said = call(folder, "data", "check", folder / "shards")
    assert "unreadable, skipped in a run: 2" in said
    assert "CMYK, read as RGB: 4" in said
    assert max(map(len, said.splitlines()[:20])) <= 80


def test_shards_are_written_once_and_in_an_order_of_their_own(folder: Path) -> None:
    shards = sorted((folder / "shards").glob("*.tar"))
    names = [f"train-{number:06d}.tar" for number in range(4)] + [f"val-{number:06d}.tar" for number in range(3)]
    assert [path.name for path in shards] == names
    before = {path: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    said = call(folder, "data", "shard", folder / "official", folder / "shards", "--images-per-shard", 50)
    assert "wrote 4 shards of train, 3 shards of val" in said
    assert {path for path in shards if path.stat().st_mtime_ns == before[path]} == set(shards) - {shards[1]}


@pytest.mark.slow  # train, prune, distill, QAT: a minute
def test_the_run_sets_aside_what_cannot_be_read_and_learns(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    top1 = {row["artifact"].partition("-")[2]: row["top1"] for row in report["rows"]}
    assert top1["float32.onnx"] >= 0.8
    assert next(value for name, value in top1.items() if name.startswith("int8")) >= 0.75
    assert {row["images"] for row in report["rows"]} == {119}
    log = (run / "run.log").read_text()
    assert all(f"set aside: {name}" in log for name in TRUNCATED)


@pytest.mark.slow  # train, prune, distill, QAT: a minute
def test_evaluation_names_the_classes_and_agrees_with_the_run(folder: Path, run: Path) -> None:
    artifact = next((run / "artifacts").glob("model-int8*.onnx"))
    answers = [
        json.loads(call(folder, "evaluate", artifact, "--data", f"imagenet:{folder / root}", "--json"))[0]
        for root in ("official", "shards")
    ]
    rows = json.loads((run / "report.json").read_text())["rows"]
    for answer in answers:
        assert answer["top1"] == next(row["top1"] for row in rows if row["artifact"] == artifact.name)
        assert [row["class"] for row in answer["per_class"]] == NAMES
    other_files, own = answers
    assert other_files["unreadable"] == [TRUNCATED[1]]
    assert own["unreadable"] == []  # the run excluded it
    assert "left out: 2 images" in own["notes"][0]
