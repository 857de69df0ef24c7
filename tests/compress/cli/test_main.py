"""The command group: lazy imports, help, errors and warnings."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import rich_click as click
from click.testing import CliRunner
from command_line import assert_one_line, call, make_images

from compress import __main__
from compress.cli import main as cli
from compress.quantization.config import Quantize
from runtimes.errors import CompressError


@pytest.mark.parametrize("command", [entry[1] for entry in cli.COMMANDS])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"Example: compress {command}" in " ".join(result.output.split())


@pytest.mark.parametrize(("module", "name", "line"), cli.COMMANDS)
def test_the_list_of_commands_shows_the_first_line_of_each_help(module: str, name: str, line: str) -> None:
    command = cli.LazyCommand(module, name, line).load()
    assert command.help is not None
    assert command.help.splitlines()[0] == line


def test_the_commands_are_grouped() -> None:
    output = call("--help").output
    places = [output.index(f"─ {title} ─") for title in cli.GROUPS]
    assert places == sorted(places)
    assert "─ Commands ─" not in output  # commands without a group


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("sys.platform", "win32", "compress: Windows is supported through WSL only"),
        ("sys.version_info", (3, 10, 1), "compress: needs Python 3.11 to 3.13, this is "),
        ("importlib.util.find_spec", lambda name: None, "needs rich_click, pydantic, yaml: pip install -e '.[host]'"),
    ],
    ids=["system", "python", "packages"],
)
def test_what_is_missing_is_said_in_one_line(
    name: str, value: object, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name, value)
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_typo_in_a_command_gets_a_suggestion() -> None:
    result = call("valdiate")
    assert result.exit_code == 2
    assert "Did you mean" in result.stderr
    assert "'validate'" in result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom compress.cli.main import commands\n"
        "commands(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'numpy', 'onnxruntime', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", "/dev/zero"),
        ("quantize", "/dev/zero", "--calibration", "photos", "-o", "int8.onnx"),
        ("compare", "/dev/zero", "/dev/zero"),
        ("deploy", "/dev/zero", "me@board"),
        ("measure", "/dev/zero"),
        ("data", "check", "/dev/zero"),
    ],
)
def test_an_endless_device_as_file_is_one_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "photos", 4)
    monkeypatch.chdir(tmp_path)
    assert_one_line(call(*arguments), 2, "/dev/zero")


def test_a_renamed_key_is_one_line_of_warning(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quantize, "RENAMED", {"images": "calibration_images"})
    result = call("validate", recipe, "--set", "quantize.images=8")
    assert result.exit_code == 0
    assert result.stderr == (
        "compress: warning: quantize: 'images' is now called 'calibration_images'; "
        "the next version no longer accepts 'images'\n"
    )


def test_a_command_imports_only_its_own_module() -> None:
    code = (
        "import sys\nfrom compress.cli.main import commands\n"
        "commands(['doctor', '--help'], standalone_mode=False)\n"
        "print(sorted(name for name in sys.modules if name.startswith('compress.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['compress.cli.doctor', 'compress.cli.main']"


def test_the_commands_are_listed_in_the_order_of_the_table() -> None:
    output = call("--help").output
    places = [output.index(f"│ {name} ") for _, name, _ in cli.COMMANDS]
    assert places == sorted(places)


def group_that_raises(error: Exception) -> click.Group:
    """A lazy group with the command `fail`."""

    @click.command()
    def fail() -> None:
        raise error

    return cli.LazyGroup("compress", commands=[fail])


class BrokenError(CompressError):
    exit_code = 7


def test_each_line_of_an_error_gets_the_name_of_the_program() -> None:
    result = CliRunner().invoke(group_that_raises(BrokenError("first\nsecond")), ["fail"])
    assert (result.exit_code, result.stderr) == (7, "compress: first\ncompress: second\n")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space or choose another folder with --out and run it again"),
        (errno.EDQUOT, "free space or choose another folder with --out and run it again"),
        (errno.EACCES, "choose another folder with --out and run it again"),
        (errno.EROFS, "choose another folder with --out and run it again"),
    ],
)
def test_errors_of_the_file_system_say_what_to_do(number: int, advice: str) -> None:
    result = CliRunner().invoke(group_that_raises(OSError(number, "why", "/a/b")), ["fail"])
    assert (result.exit_code, result.stderr) == (1, f"compress: /a/b: why; {advice}\n")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "why"), KeyError("a bug")])
def test_faults_of_the_toolkit_keep_their_traceback(error: Exception) -> None:
    result = CliRunner().invoke(group_that_raises(error), ["fail"])
    assert result.exception is error


def test_other_warnings_are_shown_as_before() -> None:
    @click.command()
    def warn() -> None:
        warnings.warn("something else", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="something else"):
        result = CliRunner().invoke(cli.LazyGroup("compress", commands=[warn]), ["warn"])
    assert result.exit_code == 0


def test_warnings_of_pillow_are_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    @click.command()
    def warn() -> None:
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, "/lib/PIL/TiffImagePlugin.py", 9)

    result = CliRunner().invoke(cli.LazyGroup("compress", commands=[warn]), ["warn"])
    assert (result.exit_code, result.output, list(recwarn)) == (0, "", [])


def test_any_letters_are_printed_in_ascii(tmp_path: Path) -> None:
    recipe = tmp_path / "Größe.yaml"
    recipe.write_text("data: {name: synthetic}\nmodel: {arch: mobilenet_v2}\n")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "compress", "schema"]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    done = subprocess.run([*command[:3], "validate", str(recipe)], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"e.yaml: valid" in done.stdout  # click writes UTF-8 where the encoding is ASCII
