"""Old and new results: a verdict is shown image by image, a collapsed class is named, other machines are told."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from compress.cli import check as check_cli
from compress.cli.main import commands
from compress.verdict import ci_formats, comparison
from compress.verdict.accepted import Accepted, Result
from compress.verdict.comparison import Limits, compare, verdict
from runtimes.errors import InputError
from runtimes.target import Target

CLASSES, IMAGES = 10, 5000
RNG = np.random.default_rng(0)
LABELS = np.arange(IMAGES) % CLASSES
RIGHT = np.where(RNG.random(IMAGES) < 0.8, LABELS, (LABELS + 1) % CLASSES)
MS = tuple(tuple(row) for row in np.exp(0.01 * RNG.normal(size=(30, 10))))


def slower(factor: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(factor * value for value in row) for row in MS)


def result(answers: npt.NDArray[np.int64] = RIGHT, **fields: object) -> Result:
    given = {
        "target": Target("here"), "artifact": "model-int8.onnx", "sha256": "0", "size_bytes": 1,
        "images": "these", "predicted": tuple(answers.tolist()), "latency_ms": slower(0.5), "reference_ms": MS,
        "reference_bytes": 4, "sessions": 5, "environment": {"cpu": "this", "python": "3.11"},
    }  # fmt: skip
    return Result(**{**given, **fields})  # type: ignore[arg-type]


def accepted(*results: Result, **fields: object) -> Accepted:
    names = tuple(f"class-{label}" for label in range(CLASSES))
    return replace(Accepted("solar", names, tuple(LABELS.tolist()), results or (result(),), "1"), **fields)


def broken(share: float, classes: tuple[int, ...] = tuple(range(CLASSES))) -> npt.NDArray[np.int64]:
    """Return the answers with a share of the right ones of some classes wrong."""
    hit = (RIGHT == LABELS) & np.isin(LABELS, classes) & (np.random.default_rng(1).random(IMAGES) < share)
    return np.where(hit, (LABELS + 2) % CLASSES, RIGHT)


def judged(new: Result, limits: Limits = Limits()) -> comparison.TargetComparison:  # noqa: B008
    (one,) = compare(accepted(), accepted(new), limits)
    return one


def verdicts(one: comparison.TargetComparison) -> dict[str, str]:
    return {check.name: check.verdict for check in one.checks}


def test_the_same_answers_and_milliseconds_pass() -> None:
    one = judged(result())
    assert verdicts(one) == {"max_top1_drop_pp": "pass", "max_slowdown": "pass"}
    assert (one.agreement, one.mcnemar, one.notes, one.verdict) == (1.0, 1.0, (), "pass")


def test_a_drop_beyond_the_limit_is_a_regression() -> None:
    one = judged(result(broken(0.03)))
    assert verdicts(one)["max_top1_drop_pp"] == one.verdict == "regression"
    assert one.mcnemar is not None
    assert one.mcnemar < 1e-10


def test_a_drop_that_noise_may_be_is_inconclusive_and_says_how_many_images_would_settle_it() -> None:
    one = judged(result(broken(0.008)))
    assert one.verdict == "inconclusive"
    assert "5000 images are too few to tell the drop from the limit; use about" in one.notes[0]


def test_a_collapsed_class_is_named_though_the_mean_is_fine() -> None:
    one = judged(result(broken(0.5, (3,))), Limits(max_top1_drop_pp=6))
    assert verdicts(one) == {"max_top1_drop_pp": "pass", "class_recall": "regression", "max_slowdown": "pass"}
    assert [drop.name for drop in one.classes] == ["class-3"]
    assert "class 'class-3' collapsed" in "\n".join(ci_formats.details((one,)))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, "pass"), (0.01, "pass"), (0.02, "inconclusive"), (0.1, "regression")]
)
def test_without_labels_the_share_of_kept_answers_is_judged(share: float, expected: str) -> None:
    unknown = {"labels": (None,) * IMAGES}
    changed = np.where(np.arange(IMAGES) < share * IMAGES, (RIGHT + 1) % CLASSES, RIGHT)
    (one,) = compare(accepted(**unknown), accepted(result(changed), **unknown), Limits(min_agreement=0.98))
    assert verdicts(one) == {"min_agreement": expected, "max_slowdown": "pass"}
    assert (one.top1, one.mcnemar, one.classes) == (None, None, ())
    assert one.agreement == pytest.approx(1 - share)
    told = ci_formats.details((one,))
    assert told[0] == f"here: {100 * (1 - share):.1f} % of 5000 predictions unchanged; the images have no labels"
    assert "min_agreement" in ci_formats.junit("solar", (one,))


def test_an_implausible_gain_is_told() -> None:
    (one,) = compare(accepted(result(broken(0.05))), accepted(), Limits())
    assert one.verdict == "pass"
    assert "implausible: top-1 rose by" in one.notes[0]


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, "pass"), (1.06, "pass"), (1.1, "inconclusive"), (1.2, "regression")]
)
def test_a_slowdown_is_judged(factor: float, expected: str) -> None:
    assert verdicts(judged(result(latency_ms=slower(0.5 * factor))))["max_slowdown"] == expected


def test_a_slower_machine_is_no_slowdown() -> None:
    one = judged(result(latency_ms=slower(0.9), reference_ms=slower(1.8)))
    assert verdicts(one)["max_slowdown"] == "pass"


def test_a_slower_float32_network_does_not_hide_a_slowdown() -> None:
    one = judged(result(latency_ms=slower(0.9), reference_ms=slower(1.8), reference_bytes=8))
    assert verdicts(one)["max_slowdown"] == "regression"
    assert "the float32 networks differ" in one.notes[-1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"environment": {"cpu": "that"}}, "environment.cpu this and that"),
        ({"target": Target("here", threads=2)}, "target.threads 1 and 2"),
    ],
)
def test_other_machines_make_latency_incomparable_not_wrong(fields: dict[str, object], told: str) -> None:
    one = judged(result(**fields, latency_ms=slower(9)))
    assert "max_slowdown" not in verdicts(one)
    assert told in one.notes[-1]
    assert one.verdict == "pass"


def test_other_images_are_inconclusive() -> None:
    one = judged(result(images="those"))
    assert verdicts(one)["max_top1_drop_pp"] == one.verdict == "inconclusive"
    assert "the test images differ" in one.notes[0]


def test_results_of_other_classes_or_targets_are_refused() -> None:
    with pytest.raises(InputError, match="the classes differ"):
        compare(accepted(), accepted(classes=("a", "b")), Limits())
    with pytest.raises(InputError, match="no target is in both: here and there"):
        compare(accepted(), accepted(result(target=Target("there"))), Limits())


def test_the_worst_target_is_the_verdict() -> None:
    other = Target("there")
    both = accepted(result(), result(target=other))
    worse = accepted(result(), result(broken(0.05), target=other))
    assert verdict(compare(both, worse, Limits())) == "regression"
    assert verdict(compare(both, both, Limits())) == "pass"


def written(path: Path, content: Accepted) -> Path:
    path.write_text(json.dumps(asdict(content)))
    return path


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
def test_a_file_that_is_no_accepted_result_is_told(tmp_path: Path, content: str) -> None:
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


def test_the_commands_limits_are_those_told_here() -> None:
    defaults = {option.name: option.default for option in check_cli.check.params}
    assert Limits().model_dump().items() <= defaults.items()
