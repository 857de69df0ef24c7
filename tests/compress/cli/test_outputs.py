"""Options that name something to write are refused in one line where nothing can be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import assert_one_line, call
from made_results import accepted, written

from compress.cli.main import LazyCommand, commands
from compress.cli.outputs import OutputPath


def every_option() -> list[tuple[str, str]]:
    """Return (command, option) for all options with which people name something to write."""
    names = []
    for name, command in commands.commands.items():
        loaded = command.load() if isinstance(command, LazyCommand) else command
        names += [(name, option) for parameter in loaded.params for option in parameter.opts
                  if option in ("--out", "-o", "--junit", "--markdown", "--cache")]  # fmt: skip
    return names


ARGUMENTS = {
    "run": ["smoke"], "sweep": ["solar"], "init": ["images"], "quantize": ["model.onnx", "--calibration", "images"],
    "bundle": ["run"], "accept": ["run"], "check": ["run"], "evaluate": ["model.onnx", "--data", "elpv"],
}  # fmt: skip


@pytest.mark.parametrize(("command", "option"), every_option())
@pytest.mark.parametrize("place", ["/proc/x", "file/x"])
def test_a_place_that_can_not_be_written_is_one_line(
    command: str, option: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("model.onnx", "file"):
        (tmp_path / name).touch()
    written(tmp_path / "run", accepted())
    assert_one_line(call(command, *ARGUMENTS[command], option, place), 2, f"{place}: can't be written")


def test_the_list_of_options_is_not_empty() -> None:
    assert {("run", "--out"), ("quantize", "-o"), ("check", "--junit"), ("init", "-o")} <= set(every_option())


def test_a_shard_folder_is_checked() -> None:
    assert_one_line(call("data", "shard", "images", "/proc/x"), 2, "/proc/x: can't be written")


def test_a_device_is_no_file() -> None:
    assert_one_line(call("accept", "run", "-o", "/dev/null"), 2, "--out /dev/null: is a device")


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file"
    assert OutputPath().convert(os.fspath(path), None, None) == path
    assert list(tmp_path.iterdir()) == []
