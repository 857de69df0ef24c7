"""Tests of runtimes.target: checks of targets and data sheets."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import runtimes
from runtimes.errors import InputError
from runtimes.target import DataSheet, Target, runtime_names


@pytest.mark.parametrize("name", ["a", "pi5", "jetson-orin_nano.8GB", "9", "x" * 64])
def test_names_of_letters_digits_and_marks_are_taken(name: str) -> None:
    assert Target(name).name == name


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", ".hidden", "../up", "a/b", "ü", "a\n", "x" * 65])
def test_names_that_could_be_a_path_or_an_option_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must have a name of letters"):
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


# Data sheets


LEAST: dict[str, Any] = {"device": "a", "float32_tflops": 2.0, "bandwidth_gb_per_s": 100, "launch_overhead_us": 5}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"float32_tflops": 0}, "float32_tflops"),
        ({"int8_tops": -1}, "int8_tops"),
        ({"float16_tflops": float("inf")}, "float16_tflops"),
        ({"bandwidth_gb_per_s": "fast"}, "bandwidth_gb_per_s"),
        ({"cores": True}, "cores"),
        ({"arithmetic_efficiency": 1.5}, "arithmetic_efficiency"),
        ({"launch_overhead_us": 0, "int8_tops": 0}, "launch_overhead_us, int8_tops"),
    ],
)
def test_figures_that_can_not_be_are_refused(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"for {wrong}$"):
        DataSheet(**{**LEAST, **fields})


def test_a_layer_gets_a_share_of_the_peak() -> None:
    sheet = DataSheet(**LEAST, int8_tops=8, arithmetic_efficiency=0.25, bandwidth_efficiency=0.5)
    assert sheet.operations_per_s("float32") == 0.5e12
    assert sheet.operations_per_s("int8", threads=1) == 2e12
    assert sheet.bytes_per_s == 50e9


@pytest.mark.parametrize(("threads", "share"), [(1, 0.25), (4, 1), (9, 1)])
def test_threads_share_the_peak_of_all_cores(threads: int, share: float) -> None:
    sheet = DataSheet(**LEAST, cores=4, arithmetic_efficiency=1)
    assert sheet.operations_per_s("float32", threads) == share * 2e12


def test_arithmetic_that_there_is_not_is_told_with_its_cure() -> None:
    with pytest.raises(InputError, match="data sheet of a has no peak for float16; add it or use float32"):
        DataSheet(**LEAST).operations_per_s("float16")
