"""A whole run through the real command line: the smoke recipe, resumed, killed, interrupted, and on a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtimes import evalset
from runtimes.artifact import Artifact
from runtimes.files import sha256_file

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"
FASTER = ("--set", "timing.blocks=3", "--set", "timing.warmup=1")  # tests look at answers, not at latency


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "compress", "run", str(SMOKE), "--out", str(out), *FASTER, *arguments]


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *arguments), capture_output=True, text=True, cwd=ROOT, timeout=240)


def weights(out: Path) -> str:
    (path,) = (out / "steps").glob("0-train-*/network.safetensors")
    return sha256_file(path)


def artifacts(out: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted((out / "artifacts").glob("*.onnx"))}


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One undisturbed run of the smoke recipe."""
    out = tmp_path_factory.mktemp("smoke") / "run"
    return out, run(out)


def test_the_smoke_recipe_ends_in_a_table_and_a_report(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = smoke
    assert done.returncode == 0, done.stderr
    assert "float32" in done.stdout
    assert "int8" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report: {out / 'report.md'}"
    assert "epoch 1/" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_run_folder_holds_what_the_readme_says(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = smoke
    for name in ("recipe.yaml", "splits.json", "report.json", "report.md", "accuracy_latency.png", "run.log"):
        assert (out / name).stat().st_size > 0
    assert not list(out.rglob("*.tmp"))
    resolved = yaml.safe_load((out / "recipe.yaml").read_text())
    assert resolved["stages"][0]["optimizer"] == "adamw"
    splits = json.loads((out / "splits.json").read_text())
    names = [set(splits[split]) for split in ("train", "val", "test")]
    assert sum(map(len, names)) == len(set.union(*names)) == 240


def test_every_artifact_has_a_manifest_that_tells_its_story(
    smoke: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    found = [Artifact.load(path) for path in sorted((smoke[0] / "artifacts").glob("*.onnx"))]
    assert [artifact.manifest.precision for artifact in found] == ["float32", "int8"]
    float32, int8 = (artifact.manifest for artifact in found)
    assert [step["step"] for step in int8.lineage] == ["network", "train", "export", "quantize", "verify"]
    assert int8.lineage[3]["from"] == float32.sha256
    assert float32.lineage[-1]["parity_with_torch"]["agreement"] == 1.0
    assert int8.size_bytes < 0.5 * float32.size_bytes
    assert (int8.opset, int8.labels) == (18, ("stripes-000", "stripes-001", "stripes-002"))


def test_the_network_learns_and_int8_keeps_it(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    rows = json.loads((smoke[0] / "report.json").read_text())["rows"]
    assert rows[0]["top1"] >= 0.8
    assert rows[1]["top1"] >= rows[0]["top1"] - 0.1


def test_the_test_split_is_read_by_the_measurement_alone(
    smoke: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    splits = json.loads((smoke[0] / "splits.json").read_text())
    (prepared,) = (smoke[0] / "steps").glob("images-test-*")
    assert set(evalset.load(prepared).names) == set(splits["test"])
    (calibration,) = (smoke[0] / "steps").glob("images-calibration-*")
    assert set(evalset.load(calibration).names) <= set(splits["train"])
    measured, trained = (next((smoke[0] / "steps").glob(f"{name}-*/done.json")) for name in ("images-test", "int8"))
    assert measured.stat().st_mtime > trained.stat().st_mtime


def test_a_finished_run_is_taken_from_the_folder_in_seconds(
    smoke: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, first = smoke
    before = {path: path.stat().st_mtime_ns for path in (out / "steps").rglob("*") if path.is_file()}
    start = time.monotonic()
    again = run(out)
    assert time.monotonic() - start < 5
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert {path: path.stat().st_mtime_ns for path in (out / "steps").rglob("*") if path.is_file()} == before


def test_another_setting_redoes_only_what_depends_on_it(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(smoke[0], out)
    done = run(out, "--set", "quantize.calibration_images=8")
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stderr
    assert len(list((out / "steps").glob("int8-*"))) == 2
    assert len(list((out / "steps").glob("0-train-*"))) == 1


def start_until_epoch(out: Path, epoch: int) -> subprocess.Popen[str]:
    """Start a run and return when the log says that an epoch is done."""
    process = subprocess.Popen(command(out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 120
    log = out / "run.log"
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and f"epoch {epoch}/" in log.read_text():
            return process
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"epoch {epoch} was not reached: {process.communicate()}")


def test_killed_in_training_the_next_run_ends_with_the_same_files(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start_until_epoch(out, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = run(out)
    assert done.returncode == 0, done.stderr
    assert "resumed after epoch" in done.stderr
    assert "epoch 1/" not in done.stderr
    assert weights(out) == weights(smoke[0])
    assert artifacts(out) == artifacts(smoke[0])


def test_interrupted_it_says_so_in_one_line_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start_until_epoch(out, 1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert (
        told.splitlines()[-1] == "compress: interrupted; the same command goes on from the last finished epoch or step"
    )
    assert not (out / "report.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_nothing_half_written_counts(small_disk: Path) -> None:
    out = small_disk / "run"
    done = run(out)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert not (out / "report.json").exists()
    unfinished = [step for step in (out / "steps").iterdir() if not (step / "done.json").exists()]
    assert len(unfinished) == 1
    assert not list(out.rglob("*.tmp"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    done = run(tmp_path / "locked" / "run")
    assert done.returncode == 1
    assert "Permission denied" in done.stderr.splitlines()[-1]


def test_a_failing_gate_exits_with_3_and_an_undecided_one_with_4(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(smoke[0], out)
    limits: list[tuple[dict[str, Any], int, str]] = [
        ({"max_size_ratio": 0.9, "max_top1_drop_pp": 50}, 0, "pass"),
        ({"max_size_ratio": 0.01}, 3, "regression"),
        ({"max_top1_drop_pp": 0}, 4, "inconclusive"),
    ]
    for gate, code, verdict in limits:
        done = run(out, "--set", f"gate={json.dumps(gate)}")
        assert (done.returncode, f"verdict: {verdict}" in done.stdout) == (code, True), done.stdout + done.stderr
