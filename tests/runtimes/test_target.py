"""Targets check their own numbers."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import runtimes
from runtimes.datasheet import DataSheet
from runtimes.target import Target, runtime_names


@pytest.mark.parametrize("name", ["a", "pi5", "jetson-orin_nano.8GB", "9", "x" * 64])
def test_names_of_letters_digits_and_marks_are_taken(name: str) -> None:
    assert Target(name).name == name


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", ".hidden", "../up", "a/b", "ü", "a\n", "x" * 65])
def test_names_that_could_be_a_path_or_an_option_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be named with letters"):
        Target(name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runtime": "tflite"}, "runtime of .*fake.*ort.*, not 'tflite'"),
        ({"runtime": "__init__"}, "not '__init__'"),
        ({"threads": 0}, "1 to 1024 threads"),
        ({"threads": 1025}, "1 to 1024 threads"),
        ({"batch": 0}, "batch of 1 to 4096"),
        ({"batch": 4097}, "batch of 1 to 4096"),
        ({"provider": "npu"}, "provider of cpu, cuda, not 'npu'"),
        ({"compute_capability": "sm86"}, "compute_capability such as 8.6 in quotes, not 'sm86'"),
        ({"compute_capability": "8.6\n"}, "compute_capability such as 8.6"),
        ({"dla": 2}, "dla of 0 or 1, not 2"),
        ({"cuda_graph": "yes"}, "cuda_graph of true or false, not 'yes'"),
    ],
)
def test_fields_out_of_bounds_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target("a", **fields)


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (1024, 4096)])
def test_numbers_on_the_bounds_are_taken(threads: int, batch: int) -> None:
    target = Target("a", threads=threads, batch=batch)
    assert (target.threads, target.batch) == (threads, batch)


def test_a_target_survives_json() -> None:
    sheet = DataSheet("board", 2, 100, 5, cores=4)
    for target in (Target("a"), Target("b", threads=2, compute_capability="8.7", dla=1, datasheet=sheet)):
        assert Target.from_json(json.loads(json.dumps(asdict(target)))) == target


def test_runtime_names_are_the_files_in_backends() -> None:
    files = {path.stem for path in (Path(runtimes.__file__).parent / "backends").glob("*.py")} - {"__init__"}
    assert {"fake", "ort"} <= files
    assert runtime_names() == sorted(files)


@pytest.mark.parametrize("name", runtime_names())
def test_every_runtime_has_a_load_of_artifact_and_target(name: str) -> None:
    backend = importlib.import_module(f"runtimes.backends.{name}")
    assert list(inspect.signature(backend.load).parameters) == ["artifact", "target"]
    assert backend.PACKAGE is None or isinstance(backend.PACKAGE, str)
