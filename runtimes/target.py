"""Targets: a device with its runtime, provider, threads and batch, and the data sheet of the device."""

from __future__ import annotations

import math
import pkgutil
import re
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, get_args

from runtimes import backends
from runtimes.errors import InputError
from runtimes.files import Json

Precision = Literal["float32", "float16", "int8"]
# The integer instructions that the runtime's kernels use; INT8 weights are made for them.
InstructionSet = Literal["x86-avx2", "x86-vnni", "arm64"]
Provider = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class DataSheet:
    """Published peak figures of a device for dense tensors, from which `export.estimate` estimates latency.

    Data sheets often give the peak for 2:4-sparse weights, twice the dense one; enter the dense one.

    device: name of the device.
    float32_tflops, float16_tflops, int8_tops: 1e12 operations per second of the whole device in this arithmetic, where
        a multiply-accumulate counts as two; null where the device lacks it.
    bandwidth_gb_per_s: memory bandwidth in 1e9 bytes per second.
    launch_overhead_us: overhead per kernel in microseconds.
    cores: number of cores among which threads share the peak, as on a CPU; null where one call gets the whole peak.
    arithmetic_efficiency, bandwidth_efficiency: share of the peak that a layer of a classifier reaches.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # targets in recipes hold one

    device: str
    float32_tflops: float
    bandwidth_gb_per_s: float
    launch_overhead_us: float
    float16_tflops: float | None = None
    int8_tops: float | None = None
    cores: int | None = None
    arithmetic_efficiency: float = 0.5
    bandwidth_efficiency: float = 0.75

    def __post_init__(self) -> None:
        numbers = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "device"}
        figures = {name: value for name, value in numbers.items() if value is not None}
        wrong = [name for name, value in figures.items() if type(value) not in (int, float) or not math.isfinite(value)]
        wrong += [name for name, value in figures.items() if name not in wrong and value <= 0]
        wrong += [name for name in figures if name.endswith("_efficiency") and name not in wrong and figures[name] > 1]
        if wrong:
            raise ValueError(f"must have a number above 0 (efficiencies: at most 1) for {', '.join(wrong)}")

    def operations_per_s(self, precision: Precision, threads: int = 1) -> float:
        """Return the operations per second of a layer; raises InputError without a peak for this precision."""
        tera_ops = {"float32": self.float32_tflops, "float16": self.float16_tflops, "int8": self.int8_tops}[precision]
        if tera_ops is None:
            raise InputError(f"the data sheet of {self.device} has no peak for {precision}; add it or use float32")
        share = min(threads, self.cores) / self.cores if self.cores else 1.0
        return tera_ops * 1e12 * share * self.arithmetic_efficiency

    @property
    def bytes_per_s(self) -> float:
        """Memory bandwidth of a layer in bytes per second."""
        return self.bandwidth_gb_per_s * 1e9 * self.bandwidth_efficiency


@dataclass(frozen=True)
class Target:
    """A device with the runtime that runs an artifact on it.

    name: letters, digits, `-`, `_` and `.`; of a file, by default the file's name.
    runtime: `ort` (ONNX Runtime), `ov` (OpenVINO), `trt` (TensorRT); `litert` is for `compress measure` only.
    provider: device of the runtime; `cuda` for `trt`.
    threads: number of threads inside one operator.
    batch: images per timed call.
    instruction_set: of the CPU, which decides how INT8 is made; `auto` is this machine's.
    compute_capability: of the GPU, in quotes, as in "8.7"; `auto` is this machine's.
    cuda_graph: launch all kernels of a batch as one CUDA graph.
    dla: core of a Jetson's deep learning accelerator, 0 or 1; null for the GPU.
    datasheet: published figures, for a latency estimate where the device is not this machine.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # recipes hold targets

    name: str
    runtime: str = "ort"
    provider: Provider = "cpu"
    threads: int = 1
    batch: int = 1
    instruction_set: InstructionSet | Literal["auto"] = "auto"
    compute_capability: str = "auto"
    cuda_graph: bool = False
    dla: int | None = None
    datasheet: DataSheet | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", self.name):
            raise ValueError(f"must have a name of letters, digits, '-', '_' and '.', not {self.name!r}")
        if self.runtime not in runtime_names():
            raise ValueError(f"must have a runtime of {', '.join(runtime_names())}, not {self.runtime!r}")
        if self.provider not in get_args(Provider):
            raise ValueError(f"must have a provider of {', '.join(get_args(Provider))}, not {self.provider!r}")
        if self.instruction_set not in ("auto", *get_args(InstructionSet)):
            known = ", ".join(("auto", *get_args(InstructionSet)))
            raise ValueError(f"must have an instruction_set of {known}, not {self.instruction_set!r}")
        if self.runtime == "trt" and self.provider != "cuda":
            raise ValueError(f"must have the provider cuda with the runtime trt, not {self.provider}")
        if type(self.threads) is not int or type(self.batch) is not int:
            raise ValueError("must have whole numbers for threads and batch")
        if not (1 <= self.threads <= 1024 and 1 <= self.batch <= 4096):
            raise ValueError("must have 1 to 1024 threads and a batch of 1 to 4096")
        if not re.fullmatch(r"auto|[0-9]{1,2}\.[0-9]", self.compute_capability):
            raise ValueError(f"must have a compute_capability such as 8.6 in quotes, not {self.compute_capability!r}")
        if type(self.cuda_graph) is not bool:
            raise ValueError(f"must have a cuda_graph of true or false, not {self.cuda_graph!r}")
        if self.dla is not None and self.dla not in (0, 1):
            raise ValueError(f"must have a dla of 0 or 1, not {self.dla}")

    @classmethod
    def from_json(cls, content: Json) -> Target:
        """Rebuild from JSON; raises TypeError or ValueError for unknown or wrong fields."""
        sheet = content.get("datasheet")
        return cls(**{**content, "datasheet": None if sheet is None else DataSheet(**sheet)})


def runtime_names() -> list[str]:
    """Return the names of all runtimes, which are the files in runtimes/backends."""
    return sorted(module.name for module in pkgutil.iter_modules(backends.__path__))  # works inside a zipapp
