"""Where an artifact will run."""

from __future__ import annotations

import pkgutil
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from runtimes import backends
from runtimes.datasheet import DataSheet

# What decides how INT8 must be made: the integer instructions that the runtime's kernels use on that processor.
InstructionSet = Literal["x86-avx2", "x86-vnni", "arm64"]
Provider = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Target:
    """A runtime with its provider, threads and batch, and the instruction set that INT8 is made for.

    runtime: the name of a file in runtimes/backends. threads: inside one operator. batch: images per timed call.
    instruction_set: of the CPU; compute_capability: of the GPU, as in "8.6"; "auto" means the machine at hand.
    cuda_graph: replay a batch's launches as one. dla: core of a Jetson's deep learning accelerator, null for the GPU.
    datasheet: what the device's maker says of it, for estimates where it is not at hand.
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
            raise ValueError(f"must be named with letters, digits, '-', '_' and '.', not {self.name!r}")
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
    def from_json(cls, fields: dict[str, Any]) -> Target:
        """Rebuild from JSON; raises TypeError or ValueError for fields that don't fit."""
        sheet = fields.get("datasheet")
        return cls(**{**fields, "datasheet": None if sheet is None else DataSheet(**sheet)})


def runtime_names() -> list[str]:
    """Return the names of the runtimes that there are: the files in runtimes/backends."""
    return sorted(found.name for found in pkgutil.iter_modules(backends.__path__))  # in a zipapp, too
