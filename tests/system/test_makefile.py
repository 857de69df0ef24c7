"""The Makefile: its help, the choice of Python, and what it would run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run make in `folder`, with a copy of the Makefile and without settings of an outer make."""
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")
    }
    environment["PATH"] = path or environment["PATH"]
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def write_python(folder: Path, name: str, supported: bool) -> None:
    """Write a program that acts as a Python of a supported version or not."""
    (folder / name).write_text(f"#!/bin/sh\nexit {0 if supported else 1}\n")
    (folder / name).chmod(0o755)


def test_without_a_target_it_lists_all_of_them(tmp_path: Path) -> None:
    done = make(tmp_path)
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make ([a-z0-9-]+) +\S", done.stdout, re.MULTILINE) == targets
    assert {"help", "run", "test", "clean"} <= set(targets)


def test_the_first_supported_python_is_used(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("make", "sed", "sh", "awk"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    write_python(tmp_path / "bin", "python3", supported=False)
    missing = make(tmp_path, "-n", "run", path=str(tmp_path / "bin"))
    assert missing.returncode == 2
    assert "python3 is not Python 3.11 to 3.13 with the module venv: install one, or name it" in missing.stderr
    write_python(tmp_path / "bin", "python3.12", supported=True)
    assert "python3.12 -m venv .venv\n" in make(tmp_path, "-n", "run", path=str(tmp_path / "bin")).stdout
    write_python(tmp_path / "bin", "python3", supported=True)
    assert "python3 -m venv .venv\n" in make(tmp_path, "-n", "run", path=str(tmp_path / "bin")).stdout


def test_a_run_installs_no_tools_of_the_tests(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    write_python(tmp_path / "bin", "mine", supported=True)
    mine = f"PYTHON={tmp_path / 'bin' / 'mine'}"
    run, test = make(tmp_path, "-n", "run", mine).stdout, make(tmp_path, "-n", "test", mine).stdout
    assert "-e '.[host]'" in run
    assert "dev" not in run
    assert "6 GB" in run
    assert "quiet" not in run
    assert "-e '.[host,dev]'" in test


def test_torch_comes_from_the_index_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    write_python(tmp_path / "bin", "mine", supported=True)
    lines = make(tmp_path, "-n", "run", f"PYTHON={tmp_path / 'bin' / 'mine'}", "TORCH_INDEX=https://example.org").stdout
    (torch,) = [line for line in lines.splitlines() if "--index-url" in line]
    assert re.search(r"--no-deps --index-url 'https://example.org' \"torch>=\S+\" \"torchvision>=\S+\"$", torch)


def test_clean_keeps_runs(tmp_path: Path) -> None:
    for name in (".venv", "runs", "sweeps"):
        (tmp_path / name).mkdir()
    assert make(tmp_path, "clean").returncode == 0
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"runs", "sweeps"}
