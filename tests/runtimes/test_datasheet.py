"""A data sheet checks its own numbers and says what a layer gets of them."""

from __future__ import annotations

from typing import Any

import pytest

from runtimes.datasheet import DataSheet
from runtimes.errors import InputError

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
    with pytest.raises(InputError, match="data sheet of a has no peak for float16; add it, or use float32"):
        DataSheet(**LEAST).operations_per_s("float16")
