"""The commands check and compare: exit codes, files for CI systems, and messages."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from made_results import accepted, broken, result, slower, written

from compress.cli import check as check_cli
from compress.cli.main import commands
from compress.verdict.comparison import Limits


def call(*arguments: object, **environment: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands, [*map(str, arguments)], env=environment)
    return done.exit_code, done.output


def test_check_writes_what_ci_systems_read(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", accepted())
    new = written(tmp_path / "new.json", accepted(result(broken(0.05, (3,)), latency_ms=slower(0.6))))
    code, said = call("check", new, "--against", old, "--junit", tmp_path / "j.xml", GITHUB_ACTIONS="true",
                      GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))  # fmt: skip
    assert code == 3
    assert "::error title=here max_slowdown::regression: 1.20" in said
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert suite.attrib["tests"] == str(len(suite))
    assert suite.attrib["failures"] == str(len(suite.findall("*/failure"))) != "0"
    assert "### solar: regression" in (tmp_path / "summary.md").read_text()
    assert max(len(line) for line in said.splitlines() if line.startswith(" ")) <= 80


@pytest.mark.parametrize(("share", "code"), [(0.0, 0), (0.008, 4), (0.05, 3)])
def test_the_exit_code_is_the_verdict(tmp_path: Path, share: float, code: int) -> None:
    old, new = (
        written(tmp_path / "old.json", accepted()),
        written(tmp_path / "new.json", accepted(result(broken(share)))),
    )
    assert call("check", new, "--against", old)[0] == code
    content = json.loads(call("check", new, "--against", old, "--json")[1])
    assert content["targets"][0]["verdict"] == content["verdict"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema_version": 9}', '{"schema_version": 1, "results": [{}]}'])
def test_a_file_that_is_no_accepted_result_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    code, said = call("check", tmp_path / "a.json", "--against", tmp_path / "a.json")
    assert code == 2
    assert said.startswith("compress: ")
    assert len(said.splitlines()) == 1


def test_a_missing_file_names_the_cure(tmp_path: Path) -> None:
    new = written(tmp_path / "new.json", accepted())
    code, said = call("check", new, "--against", tmp_path / "no.json")
    assert (code, said) == (2, f"compress: {tmp_path / 'no.json'}: no such file; write it with: compress accept RUN\n")


def test_compare_shows_each_against_the_first(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{share}.json", accepted(result(broken(share)))) for share in (0.0, 0.05, 0.1)]
    code, said = call("compare", *paths)
    assert code == 0
    assert said.count("against") == 2
    assert call("compare", paths[0])[0] == 2


def test_the_defaults_of_the_options_are_those_of_the_limits() -> None:
    defaults = {option.name: option.default for option in check_cli.check.params}
    assert Limits().model_dump().items() <= defaults.items()
