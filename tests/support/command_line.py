"""Run commands in this process and check their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from compress.cli.main import commands


def call(*arguments: str | Path) -> Result:
    """Run `compress` with the arguments."""
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def assert_one_line(result: Result, code: int, *parts: str) -> None:
    """Assert that a command ended with the exit code and one line of error with all the parts, after its progress."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    *progress, error = [line for line in result.stderr.splitlines() if line]
    assert error.startswith("compress: ")
    assert not [line for line in progress if line.startswith("compress: ")]
    for part in parts:
        assert part in error


def make_images(folder: Path, count: int, start: int = 0) -> None:
    """Write images of 16 pixels of random noise, named by numbers from `start`."""
    folder.mkdir(parents=True)
    for index in range(start, start + count):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
