"""Describe this machine: processor, instruction set, memory, system and package versions."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from runtimes.errors import UnavailableError
from runtimes.target import InstructionSet, Target

RUNTIME_PACKAGES = ("numpy", "onnxruntime", "openvino", "ai-edge-litert")
VERSIONED_PACKAGES = (*RUNTIME_PACKAGES, "onnx", "torch", "torchvision", "nncf", "tensorrt", "tensorrt-rtx-cu13")


@dataclass(frozen=True)
class Environment:
    """The processor, its integer instructions, memory, system and package versions."""

    cpu: str
    instruction_set: InstructionSet
    cores: int
    memory_gib: float
    system: str
    python: str
    versions: dict[str, str]

    def for_runtimes(self) -> dict[str, object]:
        """Return what latency and outputs depend on, without the packages that only the host uses."""
        versions = {name: self.versions[name] for name in RUNTIME_PACKAGES if name in self.versions}
        return {**asdict(self), "versions": versions}


def describe() -> Environment:
    """Describe this machine without importing any engine."""
    return Environment(
        cpu=_cpu_name(),
        instruction_set=detect_instruction_set(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=package_versions(),
    )


def detect_instruction_set(machine: str | None = None, cpu_flags: frozenset[str] | None = None) -> InstructionSet:
    """Return the integer instruction set that ONNX Runtime's kernels use on this machine.

    Without VNNI, x86 multiplies unsigned by signed bytes with `vpmaddubsw`, which adds two products in int16 and
    saturates. With VNNI (`vpdpbusd`) and on arm64 sums are exact. Raises UnavailableError for other architectures.
    """
    machine = machine or platform.machine()
    if machine in ("aarch64", "arm64"):
        return "arm64"
    if machine not in ("x86_64", "AMD64"):
        raise UnavailableError(f"the architecture {machine} is not supported; use x86_64 or arm64")
    flags = _cpu_flags() if cpu_flags is None else cpu_flags
    return "x86-vnni" if flags & {"avx512_vnni", "avx_vnni"} else "x86-avx2"


def instruction_set_of(target: Target) -> InstructionSet:
    """Return the target's instruction set, this machine's for "auto"."""
    return detect_instruction_set() if target.instruction_set == "auto" else target.instruction_set


def why_not_here(target: Target) -> str | None:
    """Return why a target cannot be measured on this machine, None if it can."""
    if target.provider == "cuda":
        from runtimes.backends.trt import compute_capability  # needs NumPy, which this module does without

        here = compute_capability()
        if here is None:
            return "this machine has no NVIDIA GPU"
        if target.compute_capability in ("auto", here):
            return None
        return f"it has compute capability {target.compute_capability}, this machine's GPU has {here}"
    targets, ours = instruction_set_of(target), detect_instruction_set()
    if targets.split("-")[0] != ours.split("-")[0] or (targets, ours) == ("x86-vnni", "x86-avx2"):
        return f"it has the instruction set {targets}, this machine {ours}"
    return None


def package_versions(names: tuple[str, ...] = VERSIONED_PACKAGES) -> dict[str, str]:
    """Return the versions of the installed packages among `names`, without importing them."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def resident_bytes() -> int:
    """Return this process's resident memory in bytes, 0 where the system does not show it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    pairs = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_name() -> str:
    info = _cpuinfo()
    return info.get("model name") or info.get("CPU part") or platform.processor() or "unknown"


def _cpu_flags() -> frozenset[str]:
    return frozenset(_cpuinfo().get("flags", "").split())
