"""Where an artifact will run."""

from __future__ import annotations

import pkgutil
import re
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from runtimes import backends

# What decides how INT8 must be made: the integer instructions that the runtime's kernels use on that processor.
InstructionSet = Literal["x86-avx2", "x86-vnni", "arm64"]
Provider = Literal["cpu"]


@dataclass(frozen=True)
class Target:
    """A runtime with its provider, threads and batch, and the instruction set that INT8 is made for.

    runtime: the name of a file in runtimes/backends. threads: inside one operator. batch: images per timed call.
    instruction_set: "auto" means that of the machine at hand.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # recipes hold targets

    name: str
    runtime: str = "ort"
    provider: Provider = "cpu"
    threads: int = 1
    batch: int = 1
    instruction_set: InstructionSet | Literal["auto"] = "auto"

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
        if type(self.threads) is not int or type(self.batch) is not int:
            raise ValueError("must have whole numbers for threads and batch")
        if not (1 <= self.threads <= 1024 and 1 <= self.batch <= 4096):
            raise ValueError("must have 1 to 1024 threads and a batch of 1 to 4096")


def runtime_names() -> list[str]:
    """Return the names of the runtimes that there are: the files in runtimes/backends."""
    return sorted(found.name for found in pkgutil.iter_modules(backends.__path__))  # in a zipapp, too
