"""Names of shipped files on the command line and their completion in shells, and --quiet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import assert_one_line, call


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)


def test_a_shipped_recipe_is_named_from_anywhere() -> None:
    result = call("validate", "smoke", "--set", "stages.0.epochs=5")
    assert result.exit_code == 0, result.output
    assert "smoke.yaml: valid" in result.output


def test_a_wrong_name_is_one_line() -> None:
    assert_one_line(call("validate", "smokee"), 2, "smokee: no such file; did you mean the shipped 'smoke'?")
    assert_one_line(call("sweep", "solr"), 2, "solr: no such file; did you mean the shipped 'solar'?")


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("compress val", ["plain,validate"]),
        ("compress run resnet18", ["plain,resnet18_pruned_int8"]),
        ("compress sweep s", ["plain,solar"]),
        ("compress run ./a", ["file,./a"]),
        ("compress list swe", ["plain,sweeps"]),
    ],
)
def test_shells_complete_commands_and_names(words: str, completions: list[str]) -> None:
    environment = {**os.environ, "_COMPRESS_COMPLETE": "bash_complete", "COMP_WORDS": words,
                   "COMP_CWORD": str(len(words.split()) - 1)}  # fmt: skip
    command = [sys.executable, "-m", "compress"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == completions


@pytest.mark.parametrize(
    "command", ["run", "init", "sweep", "quantize", "measure", "evaluate", "deploy", "data check", "data shard"]
)
def test_commands_that_show_progress_can_be_quiet(command: str) -> None:
    assert "--quiet" in call(*command.split(), "--help").output
