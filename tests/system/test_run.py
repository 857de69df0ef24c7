"""A whole run through the real command line: the smoke recipe, resumed, killed, interrupted, and on a full disk."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from anybody import AS_ANYBODY
from PIL import Image

from runtimes import evalset
from runtimes.artifact import Artifact
from runtimes.files import sha256_file
from runtimes.lineage import Attempt, ExportRecord, QuantizeRecord, find_record

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"
FASTER = ("--set", "timing.blocks=3", "--set", "timing.warmup=1")  # tests look at answers, not at latency


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "compress", "run", str(SMOKE), "--out", str(out), *FASTER, *arguments]


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *arguments), capture_output=True, text=True, cwd=ROOT)


def weights(out: Path) -> str:
    (path,) = (out / "steps").glob("0-train-*/network.safetensors")
    return sha256_file(path)


def artifacts(out: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted((out / "artifacts").glob("*.onnx"))}


def require_same_files(one: Path, other: Path) -> None:
    """Compare what two runs ship: byte by byte, but for an INT8 file of which the clock decided otherwise.

    Which first layers stay float is a question of measured milliseconds, and each run asks it anew.
    """
    files, others = artifacts(one), artifacts(other)
    assert files.keys() == others.keys()
    decided = [{name: _attempts(out / "artifacts" / name) for name in files} for out in (one, other)]
    assert {name: digest for name, digest in files.items() if decided[0][name] == decided[1][name]} == {
        name: digest for name, digest in others.items() if decided[0][name] == decided[1][name]
    }
    assert files["model-float32.onnx"] == others["model-float32.onnx"]


def _attempts(path: Path) -> tuple[Attempt, ...] | None:
    record = find_record(Artifact.load(path).manifest.lineage, QuantizeRecord)
    return record and record.attempts


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One undisturbed run of the smoke recipe."""
    out = tmp_path_factory.mktemp("smoke") / "run"
    return out, run(out)


def test_the_smoke_recipe_ends_in_a_table_and_a_report(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = smoke
    assert done.returncode == 0, done.stderr
    assert "baseline" in done.stdout
    assert "int8" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report: {out / 'report.html'}"
    assert "epoch 1/" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_run_folder_holds_what_the_readme_says(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = smoke
    for name in (
        "recipe.yaml",
        "splits.json",
        "seen.npz",
        "report.json",
        "report.html",
        "report.md",
        "accuracy_latency.svg",
        "run.log",
    ):
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
    assert [record.to_json()["step"] for record in int8.lineage] == ["network", "train", "export", "quantize", "verify"]
    quantized, exported = find_record(int8.lineage, QuantizeRecord), find_record(float32.lineage, ExportRecord)
    assert quantized is not None
    assert exported is not None
    assert quantized.from_sha256 == float32.sha256
    assert exported.parity_with_torch.agreement == 1.0
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


def test_a_finished_run_is_taken_from_the_folder(
    smoke: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, first = smoke
    before = {path: path.stat().st_mtime_ns for path in (out / "steps").rglob("*") if path.is_file()}
    again = run(out)
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


def test_evaluating_its_files_gives_the_reports_accuracy(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    report = json.loads((smoke[0] / "report.json").read_text())
    files = [smoke[0] / "artifacts" / row["artifact"] for row in report["rows"]]
    (images,) = smoke[0].glob("steps/images-test-*")
    whole = [sys.executable, "-m", "compress", "evaluate", *files, "--evalset", images, "--out", tmp_path / "answers"]
    done = subprocess.run([*whole, "--json"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["top1"] for one in found] == [row["top1"] for row in report["rows"]]
    assert found[0]["drop_pp"] is None
    assert found[1]["drop_pp"]["value"] == pytest.approx(report["rows"][1]["top1_drop_pp"]["value"])
    shown = subprocess.run(whole, capture_output=True, text=True, cwd=ROOT)  # from what is there
    assert shown.returncode == 0, shown.stderr
    assert "ECE %" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "…" not in shown.stdout
    other = subprocess.run([*whole[:-4], "--data", "nothing:/x"], capture_output=True, text=True, cwd=ROOT)
    assert other.returncode == 2
    assert other.stderr.startswith("compress: --data: there is no data set 'nothing'; choose from ")


def start_until_epoch(out: Path, epoch: int) -> subprocess.Popen[str]:
    """Start a run and return when the log says that an epoch is done."""
    process = subprocess.Popen(
        command(out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what nohup and & start ignores it
    )  # fmt: skip
    log = out / "run.log"
    while process.poll() is None:
        if log.exists() and f"epoch {epoch}/" in log.read_text():
            return process
        time.sleep(0.02)
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
    require_same_files(out, smoke[0])


def test_interrupted_it_says_so_in_one_line_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start_until_epoch(out, 1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert (
        told.splitlines()[-1]
        == "compress: interrupted; run the same command again to resume after the last finished epoch or step"
    )
    assert not (out / "report.json").exists()


@pytest.mark.slow  # two runs; tests/compress/training tests the state by itself
def test_asked_to_end_it_writes_its_state_and_the_next_run_ends_with_the_same_files(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start_until_epoch(out, 2)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 143, told
    where = r"(step \d+ of 0-train, epoch \d/8|epoch \d/8 of 0-train)"
    assert re.fullmatch(
        f"compress: terminated; run the same command again to resume after {where}", told.splitlines()[-1]
    )
    done = run(out)
    assert done.returncode == 0, done.stderr
    assert "resumed after " in done.stderr
    assert weights(out) == weights(smoke[0])
    require_same_files(out, smoke[0])


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


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    given = command(tmp_path / "locked" / "run")
    done = subprocess.run(given, capture_output=True, text=True, cwd=ROOT, **AS_ANYBODY)
    assert done.returncode == 2
    assert "Permission denied); choose another path" in done.stderr.splitlines()[-1]


def test_a_failing_gate_exits_with_3_and_an_undecided_one_with_4(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(smoke[0], out)
    limits: list[tuple[dict[str, Any], int, str]] = [
        ({"max_size_ratio": 0.9, "max_drop_pp": 50}, 0, "pass"),
        ({"max_size_ratio": 0.01}, 3, "regression"),
        ({"max_drop_pp": 0}, 4, "inconclusive"),
    ]
    for gate, code, verdict in limits:
        done = run(out, "--set", f"gate={json.dumps(gate)}")
        assert (done.returncode, f"verdict: {verdict}" in done.stdout) == (code, True), done.stdout + done.stderr


def test_a_folder_of_photographs_runs_and_what_can_not_be_read_is_set_aside_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(120 * label, 120 * label + 100, (40, 32 + index, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.jpg")
    (tmp_path / "photos" / "dark" / "cut.jpg").write_bytes((tmp_path / "photos" / "dark" / "0.jpg").read_bytes()[:200])
    recipe = {
        "data": {"name": "imagefolder", "root": str(tmp_path / "photos")},
        "preprocessing": {"resize": 36, "crop": 32},
        "max_unreadable_images": 0.05,
        "model": {"arch": "mobilenet_v2", "width": 0.25},
        "stages": [{"stage": "train", "epochs": 2, "batch_size": 8, "warmup_epochs": 1, "schedule": "cosine",
                    "ema_decay": 0.9, "augment": {"crop_scale": [0.5, 1.0]}}],
        "quantize": {"method": "nncf", "calibration_images": 8},
        "export": {"batch": 2},
        "targets": [{"name": "pairs", "batch": 2}],
        "timing": {"warmup": 1, "blocks": 2, "runs_per_block": 2},
    }  # fmt: skip
    (tmp_path / "photos.yaml").write_text(yaml.safe_dump(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "compress", "run", str(tmp_path / "photos.yaml"), "--out", str(tmp_path / "run")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [one["name"] for one in report["data"]["set_aside"]] == ["dark/cut.jpg"]
    assert "1 image excluded:" in (tmp_path / "run" / "report.md").read_text()
    assert sum(sum(counts.values()) for counts in report["data"]["images_per_class"].values()) == 24
    assert [row["precision"] for row in report["rows"]] == ["float32", "int8"]
    assert report["artifacts"][1]["scheme"] == "nncf"


@pytest.mark.slow
def test_another_preprocessing_is_in_every_manifest_though_the_weights_are_the_same(tmp_path: Path) -> None:
    recipe = {
        "data": {"name": "synthetic", "images_per_class": 8, "size": 16},
        "preprocessing": {"resize": 16, "crop": 16},
        "model": {"arch": "mobilenet_v2", "width": 0.25},
        "quantize": {"calibration_images": 4},
        "timing": {"warmup": 1, "blocks": 2, "runs_per_block": 2},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    whole = [sys.executable, "-m", "compress", "run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")]
    for mean in (0.5, 0.25):
        changed = [*whole, "--set", f"preprocessing.mean=[{mean}, {mean}, {mean}]"]
        done = subprocess.run(changed, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = [Artifact.load(path).manifest for path in (tmp_path / "run" / "artifacts").glob("*.onnx")]
        assert [manifest.preprocessing.mean for manifest in found] == [(mean, mean, mean)] * 2


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_main_recipe_keeps_its_promises(tmp_path: Path) -> None:
    """The bars of the README's first command; three quarters of its time is training."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "compress", "run", "recipes/mobilenet_int8.yaml", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - start < 900
    uncut, _, int8 = json.loads((tmp_path / "run" / "report.json").read_text())["rows"]
    assert uncut["top1"] >= 0.8
    assert int8["top1_drop_pp"]["value"] <= 1.0
    assert int8["speedup_p50"]["value"] >= 4.0


@pytest.mark.slow
def test_efficientnet_lite0_gets_18_of_foolbox_s_20_images_right(tmp_path: Path) -> None:
    package = importlib.util.find_spec("foolbox")
    assert package is not None
    assert package.submodule_search_locations
    photographs = Path(package.submodule_search_locations[0]) / "data"
    for image in photographs.glob("imagenet_*.jpg"):
        label = int(image.stem.split("_")[2])
        (tmp_path / "test" / str(label)).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "test" / str(label))
        (tmp_path / "photographs").mkdir(exist_ok=True)
        shutil.copy(image, tmp_path / "photographs")
    done = subprocess.run(
        [sys.executable, "-m", "compress", "run", "recipes/efficientnet_lite0_int8.yaml",
         "--out", str(tmp_path / "run"),
         "--set", f"data.test={tmp_path / 'test'}", "--set", f"data.calibration={tmp_path / 'photographs'}"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    float32, int8 = json.loads((tmp_path / "run" / "report.json").read_text())["rows"]
    assert (float32["images"], float32["top1"]) == (20, 0.9)
    assert int8["top1"] >= 0.7
    assert int8["size_bytes"] < 0.3 * float32["size_bytes"]
