"""What a device's maker says of it: the figures that an estimate is made of where the device is not at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from runtimes.errors import InputError

Precision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class DataSheet:
    """Peak figures of a device, dense (makers like to give twice as much, for weights of which half are zeros).

    float32_tflops, float16_tflops, int8_tops: 1e12 operations per second of the whole device, a multiply-accumulate
    being two; None where there is no such arithmetic. bandwidth_gb_per_s: 1e9 bytes per second, of memory.
    launch_overhead_us: what starting one kernel costs, however small. cores: where threads share the peak, as on a
    CPU; None where one call gets all of it. arithmetic_efficiency and bandwidth_efficiency: the share of the peak that
    a layer of a classifier reaches.
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
        given = {name: value for name, value in numbers.items() if value is not None}
        wrong = [name for name, value in given.items() if type(value) not in (int, float) or not math.isfinite(value)]
        wrong += [name for name, value in given.items() if name not in wrong and value <= 0]
        wrong += [name for name in given if name.endswith("_efficiency") and name not in wrong and given[name] > 1]
        if wrong:
            raise ValueError(f"must have a number above 0, of efficiencies at most 1, for {', '.join(wrong)}")

    def operations_per_s(self, precision: Precision, threads: int = 1) -> float:
        """Return how many operations per second a layer gets; raises InputError where there is no such arithmetic."""
        tera = {"float32": self.float32_tflops, "float16": self.float16_tflops, "int8": self.int8_tops}[precision]
        if tera is None:
            raise InputError(f"the data sheet of {self.device} has no peak for {precision}; add it, or use float32")
        share = min(threads, self.cores) / self.cores if self.cores else 1.0
        return tera * 1e12 * share * self.arithmetic_efficiency

    @property
    def bytes_per_s(self) -> float:
        """Return how many bytes per second a layer gets from memory."""
        return self.bandwidth_gb_per_s * 1e9 * self.bandwidth_efficiency
