"""The board has Python 3.10 or later, NumPy and one inference engine: nothing else may be imported."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import runtimes

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
        [python, "-I", "-B", "-W", "error", "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60
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
