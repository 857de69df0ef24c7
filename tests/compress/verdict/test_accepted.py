"""Accepted results as files: they round-trip, and other files are refused in one line."""

from __future__ import annotations

import copy
import functools
import json
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from made_results import IMAGES, accepted, result, written

from compress.verdict import accepted as files
from compress.verdict.accepted import Accepted
from compress.verdict.comparison import Limits, compare
from runtimes.errors import InputError
from runtimes.target import Target


def test_results_round_trip_through_a_file(tmp_path: Path) -> None:
    results = accepted(result(), result(target=Target("there", threads=2)), labels=(None,) * IMAGES)
    files.write(tmp_path / "a.json", results)
    assert files.read(tmp_path / "a.json") == results


def test_targets_of_older_files_get_the_defaults_of_new_settings(tmp_path: Path) -> None:
    content = json.loads(json.dumps(asdict(accepted())))
    del content["results"][0]["target"]["cuda_graph"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert files.read(tmp_path / "a.json") == accepted()


def test_predictions_and_labels_are_of_the_same_images() -> None:
    with pytest.raises(ValueError, match="here: 1 predictions, 5000 labels"):
        accepted(replace(result(), predicted=(0,)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an accepted result"),
        ("[]", "not an accepted result"),
        ("{}", "it has no schema_version"),
        ('{"schema_version": 9}', "schema version 9, this toolkit reads 1; accept a run again"),
        ('{"schema_version": 1, "results": [{}]}', "it has no recipe"),
    ],
)
def test_a_file_that_is_no_accepted_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        files.read(tmp_path / "a.json")
    assert str(error.value).startswith(f"{tmp_path / 'a.json'}: ")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; write it with: compress accept RUN"):
        files.read(tmp_path / "no.json")


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["results"][0].pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("predicted"), "it has no predicted"),
        (_without("sha256"), "sha256"),
        (lambda content: content.update(labels=3), "labels: Input should be a valid tuple"),
        (lambda content: content["results"][0]["target"].update(threads=0), "1 to 1024 threads"),
        (lambda content: content["results"].append(content["results"][0]), "two results of one target: here, here"),
    ],
)
def test_a_malformed_result_is_refused(tmp_path: Path, damage: Callable[[Any], None], message: str) -> None:
    content = json.loads(written(tmp_path / "a.json", accepted()).read_text())
    damage(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        files.read(tmp_path / "a.json")


def test_the_default_path_is_named_after_the_recipe() -> None:
    assert files.default_path("solar") == Path("recipes/accepted/solar.json")
    assert Accepted("solar", (), (), (), "1").schema_version == files.SCHEMA_VERSION


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("latency_ms", [], "latency_ms: needs blocks of positive numbers, equally many in each"),
        ("reference_ms", [[]], "reference_ms: needs blocks of positive numbers, equally many in each"),
        ("latency_ms", [[0.0, 1.0]], "latency_ms: needs blocks of positive numbers, equally many in each"),
        ("latency_ms", [[float("nan")]], "latency_ms: needs blocks of positive numbers, equally many in each"),
        ("latency_ms", [[1.0]], "different numbers of blocks"),
    ],
)
def test_latencies_that_can_not_be_compared_are_refused(
    tmp_path: Path, field: str, value: list[list[float]], message: str
) -> None:
    content = asdict(accepted())
    content["results"][0][field] = value
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        files.read(tmp_path / "a.json")


def _paths(value: Any, start: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of all values in JSON content, of lists those of the first item."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*start, key)
        yield from _paths(item, (*start, key))


def test_a_wrong_value_anywhere_is_one_line_or_can_be_compared(tmp_path: Path) -> None:
    few = Accepted("solar", ("a", "b"), (0, 1), (replace(result(), predicted=(0, 1)),), "1")
    content, path = json.loads(json.dumps(asdict(few))), tmp_path / "a.json"
    for place in _paths(content):
        for wrong in (None, [], {}, "x", -1, [[[]]], {"no such": 1}, math.inf):
            damaged = copy.deepcopy(content)
            parent = functools.reduce(operator.getitem, place[:-1], damaged)
            parent[place[-1]] = wrong
            path.write_text(json.dumps(damaged))
            try:
                compare(few, files.read(path), Limits(metric="macro_f1"))
            except InputError as error:
                assert "\n" not in str(error), place  # noqa: PT017
