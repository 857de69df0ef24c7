"""The commands check and compare: exit codes, files for CI systems, and messages."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from made_results import accepted, broken, result, slower, written

from compress.cli import check as check_cli
from compress.cli.main import commands
from compress.verdict.comparison import Limits
from runtimes.target import Target


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
    for name, value in Limits().model_dump(exclude={"min_recall"}).items():
        assert defaults[name] == value


def test_two_checks_in_one_step_keep_both_summaries(tmp_path: Path) -> None:
    same = written(tmp_path / "same.json", accepted())
    other = written(tmp_path / "other.json", accepted(recipe="wind"))
    summary = tmp_path / "summary.md"
    for path in (same, other):
        call("check", path, "--against", path, GITHUB_STEP_SUMMARY=str(summary))
    call("check", same, "--against", same, "--markdown", summary, GITHUB_STEP_SUMMARY=str(summary))
    text = summary.read_text()
    assert [text.count(f"### {name}: pass") for name in ("solar", "wind")] == [2, 1]
    own = tmp_path / "own.md"
    for path in (same, other):  # a file of one's own holds the last check only
        call("check", path, "--against", path, "--markdown", own, GITHUB_STEP_SUMMARY=str(summary))
    assert own.read_text().startswith("### wind: pass")
    assert "solar" not in own.read_text()
    assert summary.read_text() == text


def test_metrics_and_recall_are_options(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", accepted())
    new = written(tmp_path / "new.json", accepted(result(broken(0.1, (3,)))))
    options = ("--metric", "balanced_accuracy", "--max-drop-pp", "20", "--min-recall", "class-3=0.9",
               "--min-recall", "class-4=0.5")  # fmt: skip
    code, said = call("check", new, "--against", old, "--json", *options)
    (target,) = json.loads(said)["targets"]
    assert code == 3
    assert {check["name"]: check["verdict"] for check in target["checks"]} == {
        "max_drop_pp": "pass", "min_recall.class-3": "regression", "min_recall.class-4": "pass", "max_slowdown": "pass"
    }  # fmt: skip
    assert target["metric"] == "balanced_accuracy"
    assert target["metric_values"][0] > target["metric_values"][1]
    assert "balanced accuracy" in call("compare", old, new, *options)[1]


@pytest.mark.parametrize("text", ["class-3", "=0.5", "class-3=", "class-3=80", "class-3=0", "class-3=nan", "x=-1"])
def test_a_recall_that_is_no_class_and_share_is_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "a.json", accepted())
    code, said = call("check", path, "--against", path, "--min-recall", text)
    assert (code, said.startswith(f"compress: --min-recall {text}: must be CLASS=SHARE")) == (2, True)


def test_a_class_given_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", accepted())
    options = ("--min-recall", "class-3=0.9", "--min-recall", "class-3=0.1")
    code, said = call("check", path, "--against", path, *options)
    assert (code, said.strip()) == (2, "compress: --min-recall: the class 'class-3' is given twice; keep one of both")


def test_another_spelling_of_the_summary_of_the_step_is_appended_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.json", accepted())
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        call("check", path, "--against", path, "--markdown", "s.md", GITHUB_STEP_SUMMARY=str(tmp_path / "s.md"))
    assert (tmp_path / "s.md").read_text().count("### solar: pass") == 2


def test_the_old_option_works_with_a_warning(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", accepted())
    new = written(tmp_path / "new.json", accepted(result(broken(0.05))))
    code, said = call("check", new, "--against", old, "--max-top1-drop-pp", "9")
    assert code == 0
    assert "compress: warning: '--max-top1-drop-pp' is now called '--max-drop-pp'" in said
    code, said = call("check", new, "--against", old, "--max-top1-drop-pp", "9", "--max-drop-pp", "1")
    assert (code, "which is given too; remove it" in said) == (2, True)


def test_a_missing_target_fails_the_check(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", accepted(result(), result(target=Target("there"))))
    new = written(tmp_path / "new.json", accepted(result(), result(target=Target("new"))))
    code, said = call("check", new, "--against", old)
    assert code == 3
    assert "there: the accepted result has this target, the new one lacks it" in said
    assert "new: not compared: the accepted result lacks this target" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [], "results": []}, "it has no test images"),
        ({"labels": [99] * 5000}, "a label is not the number of one of the 10 classes"),
        ({"classes": ["a"], "labels": [0] * 5000}, "here: a prediction is not the number of a class"),
    ],
)
def test_accepted_results_that_contradict_themselves_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = written(tmp_path / "a.json", accepted())
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    code, said = call("check", path, "--against", path)
    assert (code, message in said) == (2, True)


def test_the_result_that_was_just_accepted_passes_however_noisy_its_latency(tmp_path: Path) -> None:
    noisy = tuple(tuple(row) for row in np.random.default_rng(0).uniform(0.1, 10, (30, 10)).tolist())
    run = written(tmp_path / "run.json", accepted(result(latency_ms=noisy)))
    code, said = call("check", run, "--against", run)
    assert code == 0, said
    assert "max_slowdown" in said


def test_latency_is_not_compared_if_asked(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", accepted())
    new = written(tmp_path / "new.json", accepted(result(latency_ms=slower(2))))
    assert call("check", new, "--against", old)[0] == 3
    code, said = call("check", new, "--against", old, "--no-latency")
    assert (code, "max_slowdown" in said) == (0, False)
    assert "latency is not compared, as asked" in said
    code, said = call("check", new, "--against", old, "--no-latency", "--max-slowdown", 3)
    assert (code, said) == (2, "compress: --no-latency and --max-slowdown contradict each other; remove one\n")
    assert call("compare", old, new, "--no-latency")[0] == 0
