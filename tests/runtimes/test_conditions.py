"""Tests of runtimes.conditions: lines about slow runs, warm-up, throttling and energy."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from runtimes.clock import Timing
from runtimes.conditions import lines, slow_runs
from runtimes.measure import Measurement
from runtimes.target import Target
from runtimes.telemetry import UNKNOWN, Telemetry

STATE = asdict(Telemetry(
    power_mode=UNKNOWN, clocks_locked=UNKNOWN, cpu_governor=UNKNOWN, cpu_mhz=UNKNOWN, gpu_mhz=UNKNOWN,
    memory_mhz=UNKNOWN, temperature_c=UNKNOWN, throttling=UNKNOWN, throttle_counts=UNKNOWN, power_w=UNKNOWN,
    energy_j=UNKNOWN, monotonic_s=0.0,
))  # fmt: skip
PLAIN = Measurement(
    artifact="a.onnx", sha256="", precision="int8", size_bytes=1, target=Target("here"), timing=Timing(),
    latency_ms_p50=1.0, latency_ms_p90=None, latency_ms_p99=None, latency_ms=((1.0, 1.0, 1.6), (1.0, 1.4, 1.0)),
    throughput_images_per_s=1.0, resident_bytes=1, evalset_sha256=None, accuracy=None, predicted=(), environment={},
    telemetry={"before": STATE, "after": STATE}, warmup_runs=20, steady=True,
)  # fmt: skip


def test_a_slow_run_is_slow_against_p50() -> None:
    assert slow_runs(PLAIN) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "a.onnx: 6 timed runs, 1 of them slower than 1.5 x p50; 20 warm-up runs before"),
        ({"warmup_runs": 0, "steady": None}, "a.onnx: 6 timed runs, 1 of them slower than 1.5 x p50; no warm-up"),
        ({"warmup_runs": None, "steady": None}, "a.onnx: 6 timed runs, 1 of them slower than 1.5 x p50"),
        ({}, "throttling: unknown"),
        ({}, "energy: unknown"),
        ({"steady": False}, "a.onnx: not steady"),
        ({"telemetry": {side: {**STATE, "throttling": []} for side in ("before", "after")}}, "no throttling"),
        ({"telemetry": {side: {**STATE, "throttling": ["heat"]} for side in ("before", "after")}},
         "throttled during the timed runs: heat"),
        ({"energy_mj": {"VDD_IN": 4.25, "gpu": 1000.0}}, "a.onnx: millijoules per call by rail, idle power "
         "included: VDD_IN 4.25, gpu 1e+03"),
    ],
)  # fmt: skip
def test_lines_describe_what_is_known(changes: dict[str, Any], line: str) -> None:
    assert any(each.startswith(line) for each in lines([replace(PLAIN, **changes)]))


def test_older_files_without_telemetry() -> None:
    assert lines([replace(PLAIN, telemetry={})])[1:] == ["energy: unknown, the system does not show it"]
    assert lines([]) == []
