"""run.pyz on a board: its commands, and imports of nothing but Python 3.10, NumPy and one inference engine."""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import runtimes
from export.bundle import write_bundle
from runtimes import board, bundle, environment, evalset
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.files import sha256_file
from runtimes.target import Target

PACKAGE = Path(runtimes.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
BANNED = (  # what a board lacks
    *("torch", "torchvision", "onnx", "pydantic", "click", "rich_click", "rich", "yaml", "PIL", "scipy", "jinja2"),
    *("compress", "export"),
)
ENGINES = ("onnxruntime", "openvino", "ai_edge_litert", "tensorrt", "tensorrt_rtx")

SCRIPT = r"""
import sys

ROOT, FOLDER, BANNED, MODULES = sys.argv[1], sys.argv[2], sys.argv[3].split(), sys.argv[4].split()
sys.path.insert(0, ROOT)


class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise ImportError(name + " is not on the board")
        return None


sys.meta_path.insert(0, Ban())
try:
    import yaml
except ImportError as error:
    assert "not on the board" in str(error), error
else:
    raise AssertionError("the ban does not work")

import importlib
import json
from pathlib import Path

for name in MODULES:
    importlib.import_module(name)

import numpy as np
from runtimes import evalset, measure
from runtimes.artifact import Artifact, Manifest
from runtimes.console import SilentConsole
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

preprocessing = Preprocessing(resize=4, crop=4)
path = Path(FOLDER) / "net.fake"
path.write_text(json.dumps({"latency_ms": 1.0, "logits": [[1.0, 0.0]]}))
Artifact(path, Manifest(
    sha256=sha256_file(path), size_bytes=path.stat().st_size, format="fake", precision="float32", input_name="images",
    input_shape=(None, 3, 4, 4), output_name="logits", preprocessing=preprocessing, labels=("cat", "dog"),
)).save_manifest()
images = np.zeros((4, 4, 4, 3), np.uint8)
labels = np.array([0, 1, 0, 0])
shown = evalset.write(Path(FOLDER) / "set", images, labels, tuple("abcd"), ("cat", "dog"), preprocessing)
target = Target("board", runtime="fake")
timing = measure.Timing(warmup=1, blocks=3, runs_per_block=2)
found = measure.measure([Artifact.load(path)], target, shown, timing, SilentConsole())[0]
assert measure.Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"measurement": found.to_json(), "loaded": loaded, "python": list(sys.version_info[:2])}))
"""


def module_name(path: Path) -> str:
    """Return `runtimes.backends.ort` for `…/runtimes/backends/ort.py`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def measure_on_a_board(python: str, folder: Path) -> dict[str, object]:
    """Import every module and measure a fake artifact in a bare interpreter; return what it printed."""
    modules = " ".join(module_name(path) for path in FILES)
    arguments = [str(PACKAGE.parent), str(folder), " ".join(BANNED), modules]
    finished = subprocess.run(
        [python, "-I", "-B", "-W", "error", "-c", SCRIPT, *arguments], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def check(found: dict[str, object]) -> None:
    """Check that a fake artifact of 1 ms that is right three times of four was measured, and what was imported."""
    measurement, loaded = found["measurement"], set(found["loaded"])
    assert measurement["accuracy"]["top1"] == 0.75
    assert 1 < measurement["latency_ms_p50"] < 20
    assert loaded & {*BANNED, *ENGINES} == set()
    assert {"numpy", "runtimes"} <= loaded


def python310_with_numpy() -> str | None:
    """Return a Python 3.10 that has NumPy, from PATH or pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which("python3.10"), *root.glob("versions/3.10.*/bin/python3.10")]
    for candidate in filter(None, candidates):
        question = "import sys, numpy; assert sys.version_info[:2] == (3, 10)"
        if subprocess.run([candidate, "-I", "-c", question], capture_output=True).returncode == 0:
            return str(candidate)
    return None


def test_there_are_modules_to_look_at() -> None:
    assert len(FILES) > 8
    assert {"runtimes", "runtimes.measure", "runtimes.backends.ort"} <= {module_name(path) for path in FILES}


def test_every_module_is_imported_and_a_measurement_made_with_numpy_alone(tmp_path: Path) -> None:
    check(measure_on_a_board(sys.executable, tmp_path))


def test_python_310_measures_too(tmp_path: Path) -> None:
    python = python310_with_numpy()
    if python is None:
        pytest.skip("no Python 3.10 with NumPy on PATH or in pyenv")
    found = measure_on_a_board(python, tmp_path)
    assert found["python"] == [3, 10]
    check(found)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_file_is_python_310(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))


# Commands


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program of an unpacked bundle from another folder, without this package on the path."""
    command = [sys.executable, "-P", str(folder / "run.pyz"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def test_the_program_does_what_a_board_needs(packed: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "board"
    side = bundle.unpack(packed(), folder).artifact.manifest.preprocessing.crop
    assert "commands" in run(folder).stdout
    doctor = run(folder, "doctor")
    assert doctor.returncode == 0, doctor.stderr
    assert "runtime ort" in doctor.stdout
    verified = run(folder, "verify", "--json", str(tmp_path / "verify.json"))
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.splitlines()[-1] == "verified"
    assert json.loads((tmp_path / "verify.json").read_text())["agreement"] == 1.0
    measured = run(folder, "bench", "--json", str(tmp_path / "bench.json"))
    assert measured.returncode == 0, measured.stderr
    assert json.loads((tmp_path / "bench.json").read_text())["accuracy"]["images"] == 4
    np.save(tmp_path / "image.npy", np.zeros((side, side, 3), np.uint8))
    predicted = run(folder, "predict", str(tmp_path / "image.npy"))
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout == f"{tmp_path / 'image.npy'}: cat 84.4 %, dog 11.4 %, owl 4.2 %\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_class_names_of_any_letters_are_printed_in_any_encoding(
    fake_artifact: Callable[..., Artifact], make_evalset: Callable[..., EvalSet], tmp_path: Path, encoding: str
) -> None:
    labels = ("猫", "dög", "owl")
    sample, folder = replace(make_evalset(count=4), classes=labels), tmp_path / "sample"
    sample = evalset.write(folder, sample.images, sample.labels, sample.names, labels, sample.preprocessing)
    artifact = fake_artifact(labels=labels)
    write_bundle(artifact, Target("board", runtime="fake"), folder, sample, tmp_path / "out.tar")
    side = bundle.unpack(tmp_path / "out.tar", tmp_path / "board").artifact.manifest.preprocessing.crop
    np.save(tmp_path / "bïld.npy", np.zeros((side, side, 3), np.uint8))
    command = [sys.executable, "-P", str(tmp_path / "board/run.pyz"), "predict"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for image, code in (("bïld.npy", 0), ("nö.npy", 2)):
        done = subprocess.run([*command, str(tmp_path / image)], capture_output=True, env=environment)
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr
    done = subprocess.run([*command, str(tmp_path / "bïld.npy")], capture_output=True, env=environment)
    expected = "猫 57.6 %".encode(encoding, "backslashreplace")
    assert expected in done.stdout


def test_without_numpy_the_program_says_what_to_install(packed: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "board"
    bundle.unpack(packed(), folder)
    bare = [sys._base_executable, "-I", "-S", str(folder / "run.pyz")]  # type: ignore[attr-defined]
    doctor = subprocess.run([*bare, "doctor"], capture_output=True, text=True)
    assert doctor.returncode == 0, doctor.stderr
    assert "numpy              missing: pip install numpy\n" in doctor.stdout
    verified = subprocess.run([*bare, "verify"], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (1, "run.pyz: needs numpy: pip install numpy\n")


@pytest.mark.parametrize(("arguments", "code"), [
    (("verify", "--bundle", "/nowhere"), 2), (("bench", "--threads", "-1"), 2), (("predict", "/no/such.png"), 2),
    (("predict",), 2), (("fly",), 2),
])  # fmt: skip
def test_the_program_tells_what_is_wrong(
    packed: Callable[..., Path], tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    bundle.unpack(packed(), tmp_path / "board")
    done = run(tmp_path / "board", *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "run.pyz" in done.stderr


def test_answers_that_are_not_the_bundles_end_with_1(packed: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "board"
    opened = bundle.unpack(packed(), folder)
    np.save(folder / "golden.npy", opened.golden[::-1].copy())
    description = json.loads((folder / "bundle.json").read_text())
    description["files"]["golden.npy"] = sha256_file(folder / "golden.npy")
    (folder / "bundle.json").write_text(json.dumps(description))
    done = run(folder, "verify")
    assert done.returncode == 1
    assert "images have another top-1 class" in done.stderr


@pytest.fixture
def options(packed: Callable[..., Path], tmp_path: Path) -> Callable[..., argparse.Namespace]:
    """Return a maker of parsed options for an unpacked bundle; keywords replace options."""
    bundle.unpack(packed(), tmp_path / "board")

    def make(**given: object) -> argparse.Namespace:
        return argparse.Namespace(**{"bundle": tmp_path / "board", "threads": None, "json": None, **given})

    return make


def test_verify_writes_its_result(
    options: Callable[..., argparse.Namespace], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board.verify(options(json=tmp_path / "verify.json"))
    result = json.loads((tmp_path / "verify.json").read_text())
    assert (result["images"], result["changed"], result["passed"]) == (4, 0, True)
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "all files are unchanged; a.fake on fake:"
    assert second.startswith("top-1 agreement 1.0000 on 4 images, largest logit difference 0 (allowed ")
    assert last == "verified"


def test_bench_prints_latency_accuracy_and_conditions(
    options: Callable[..., argparse.Namespace], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "Timing", lambda: Timing(1, 3, 2, sessions=1))
    board.bench(options(threads=2))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a.fake on fake, 2 threads, batch 1"
    assert [line.split()[0] for line in lines[1:6]] == ["p50", "p90", "p99", "speed", "top-1"]
    assert lines[2].split()[1] == "-"  # too few runs for a 90th percentile
    assert lines[6].startswith("a.fake: 6 timed runs")


def test_predict_closes_its_session_after_an_error(
    options: Callable[..., argparse.Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(board, "load", lambda artifact, target: SimpleNamespace(close=lambda: closed.append(True)))
    with pytest.raises(InputError, match=r"none\.npy"):
        board.predict(options(images=[tmp_path / "none.npy"]))
    assert closed == [True]


def test_predict_reads_the_images_after_one_that_can_not_be_read(packed: Callable[..., Path], tmp_path: Path) -> None:
    side = bundle.unpack(packed(), tmp_path / "board").artifact.manifest.preprocessing.crop
    np.save(tmp_path / "image.npy", np.zeros((side, side, 3), np.uint8))
    images = [str(tmp_path / name) for name in ("none.npy", ".", "image.npy")]
    done = run(tmp_path / "board", "predict", *images)
    assert done.returncode == 2
    assert done.stdout.startswith(f"{images[2]}: ")
    assert done.stderr.endswith(", and 1 more of 3 images\n")
    assert len(done.stderr.splitlines()) == 1
    alone = run(tmp_path / "board", "predict", images[1])
    assert f"is a folder; give the paths of images, as in {tmp_path}/*.jpg" in alone.stderr


def test_a_wrong_number_of_threads_is_named(options: Callable[..., argparse.Namespace]) -> None:
    for threads in (-1, 0):
        with pytest.raises(InputError, match="--threads: must have 1 to 1024 threads"):
            board.verify(options(threads=threads))


def test_runtimes_are_listed_with_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        environment, "package_versions", lambda names: {"onnxruntime": "9.9"} if "onnxruntime" in names else {}
    )
    lines = dict(board.runtimes_here())
    assert lines["runtime ort"] == "onnxruntime 9.9"
    assert lines["runtime ov"] == "missing: openvino"
    assert "runtime fake" not in lines


def test_the_console_writes_messages_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    console = board.ErrorConsole()
    console.say("build model.engine")
    console.progress("time", 1, 2)
    assert capsys.readouterr() == ("", "build model.engine\n")
