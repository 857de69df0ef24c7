"""What the machine is: everything that a measurement depends on and that a reader must know."""

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
        """Return the part that latency and answers depend on: without the packages that only the host uses."""
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
    """Return which integer instructions ONNX Runtime's kernels use here.

    Without VNNI, x86 multiplies unsigned by signed bytes with `vpmaddubsw`, which adds two products in int16 and
    saturates; with VNNI (`vpdpbusd`) and on arm64 the sums are exact. Raises UnavailableError for other architectures.
    """
    machine = machine or platform.machine()
    if machine in ("aarch64", "arm64"):
        return "arm64"
    if machine not in ("x86_64", "AMD64"):
        raise UnavailableError(f"processors of the architecture {machine} are not supported; x86_64 and arm64 are")
    flags = _cpu_flags() if cpu_flags is None else cpu_flags
    return "x86-vnni" if flags & {"avx512_vnni", "avx_vnni"} else "x86-avx2"


def instruction_set_of(target: Target) -> InstructionSet:
    """Return the instruction set that the target names, or this machine's for "auto"."""
    return detect_instruction_set() if target.instruction_set == "auto" else target.instruction_set


def why_not_here(target: Target) -> str | None:
    """Return why a target can't be measured on this machine, None where it can."""
    if target.provider == "cuda":
        from runtimes.backends.trt import compute_capability

        here = compute_capability()
        if here is None:
            return "no NVIDIA GPU is here"
        wanted = target.compute_capability
        return None if wanted in ("auto", here) else f"it has compute capability {wanted}, the GPU here {here}"
    wanted, found = instruction_set_of(target), detect_instruction_set()
    if wanted.split("-")[0] != found.split("-")[0] or (wanted, found) == ("x86-vnni", "x86-avx2"):
        return f"it is {wanted}, this machine is {found}"
    return None


def package_versions(names: tuple[str, ...] = VERSIONED_PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed, found without importing them."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def resident_bytes() -> int:
    """Return this process's resident memory, 0 where the system does not tell."""
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
