"""The wheel: what it holds, and commands that run from it in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="building the wheel needs hatchling: make .venv/dev")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    return Path(built)


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def compress(unpacked: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command from the unpacked wheel in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-m", "compress", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_it_holds_the_packages_and_all_recipes(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = [ROOT / name for name in ("compress", "export", "runtimes")]
    files = [path for package in packages for path in package.rglob("*") if path.is_file()]
    modules = {path.relative_to(ROOT).as_posix() for path in files if path.suffix not in (".md", ".pyc")}
    recipes = {f"compress/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.yaml")}
    assert modules | recipes <= names
    assert not [name for name in names if name.startswith(("tests/", "recipes/"))]


def test_its_metadata_names_the_distribution_and_the_pythons(unpacked: Path) -> None:
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    headers = HeaderParser().parsestr(metadata.read_text())
    assert (headers["Name"], headers["Requires-Python"]) == ("compress-classifiers", ">=3.11")
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(
        headers.get_all("Classifier", [])
    )


def test_recipes_and_targets_are_found_from_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    listed = compress(unpacked, tmp_path, "list", "recipes")
    assert "mobilenet_int8 " in listed.stdout, listed.stderr
    assert str(unpacked / "compress" / "recipes") in listed.stderr
    checked = compress(unpacked, tmp_path, "validate", "smoke", "--set", "targets=[desktop-cpu]")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith(f"{unpacked / 'compress' / 'recipes' / 'smoke.yaml'}: valid")


def test_a_shipped_recipe_runs_in_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    short = ["stages.0.epochs=1", "stages.0.warmup_epochs=0", "timing.blocks=3", "gate=null"]
    done = compress(unpacked, tmp_path, "run", "smoke", *(word for value in short for word in ("--set", value)))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "smoke" / "report.html").exists()


def test_no_message_needs_a_clone() -> None:
    advice = re.compile(r"pip install (-e )?'?\.|\bmake run")
    files = [path for name in ("compress", "export", "runtimes") for path in (ROOT / name).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix() for path in files if advice.search(path.read_text())}
    assert found <= {"compress/__main__.py", "export/to_litert.py"}  # in a clone only, and a docstring
