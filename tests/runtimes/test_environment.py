"""Tests of runtimes.environment: instruction sets, package versions, memory."""

from __future__ import annotations

import json
import mmap
import resource
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from runtimes import environment
from runtimes.environment import detect_instruction_set, instruction_set_of
from runtimes.target import InstructionSet, Target


@pytest.mark.parametrize(
    ("machine", "flags", "wanted"),
    [
        ("aarch64", {"asimddp"}, "arm64"),
        ("arm64", set(), "arm64"),
        ("aarch64", {"avx512_vnni"}, "arm64"),
        ("x86_64", {"avx2", "avx512_vnni"}, "x86-vnni"),
        ("x86_64", {"avx2", "avx_vnni"}, "x86-vnni"),
        ("x86_64", {"avx2", "avx512f"}, "x86-avx2"),
        ("x86_64", set(), "x86-avx2"),
        ("AMD64", {"avx2"}, "x86-avx2"),
    ],
)
def test_instruction_set_follows_the_machine_and_its_flags(
    machine: str, flags: set[str], wanted: InstructionSet
) -> None:
    assert detect_instruction_set(machine, frozenset(flags)) == wanted


def test_auto_is_the_instruction_set_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "detect_instruction_set", lambda: "x86-vnni")
    assert instruction_set_of(Target("a")) == "x86-vnni"
    assert instruction_set_of(Target("a", instruction_set="arm64")) == "arm64"


X86 = "processor : 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx_vnni\n\nprocessor : 1\nflags : fpu\n"
ARM = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"


@pytest.mark.parametrize(("text", "name"), [(X86, "Some CPU @ 2 GHz"), (ARM, "0xd0b")])
def test_the_processor_is_named_from_cpuinfo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(environment, "Path", lambda _: tmp_path / "cpuinfo")
    assert environment.describe().cpu == name


def test_the_flags_are_those_of_the_first_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(X86)
    monkeypatch.setattr(environment, "Path", lambda _: tmp_path / "cpuinfo")
    assert detect_instruction_set("x86_64") == "x86-vnni"


def test_a_system_without_proc_is_described_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "Path", lambda _: tmp_path / "absent")
    monkeypatch.setattr("platform.processor", lambda: "")
    assert environment.describe().cpu == "unknown"
    assert environment.resident_bytes() == 0
    assert detect_instruction_set("x86_64") == "x86-avx2"


def test_the_description_fits_this_machine_and_json() -> None:
    described = environment.describe()
    assert described.cores >= 1
    assert 0.1 < described.memory_gib < 100_000
    assert described.python == ".".join(str(part) for part in sys.version_info[:3])
    assert described.versions["numpy"] == np.__version__
    assert json.loads(json.dumps(asdict(described))) == asdict(described)


def test_an_absent_package_has_no_version() -> None:
    assert environment.package_versions(("numpy", "no-such-package-here")) == {"numpy": np.__version__}


def test_a_measurement_does_not_depend_on_the_packages_of_the_host() -> None:
    described = replace(environment.describe(), versions={"numpy": "2", "onnxruntime": "1", "torch": "3"})
    assert described.for_runtimes()["versions"] == {"numpy": "2", "onnxruntime": "1"}
    on_board = replace(described, versions={"numpy": "2", "onnxruntime": "1"})
    assert described.for_runtimes() == on_board.for_runtimes()


def test_resident_memory_grows_with_what_is_held() -> None:
    size = 64 << 20
    before = environment.resident_bytes()
    held = np.frombuffer(mmap.mmap(-1, size), np.uint8)  # new pages; the allocator may give back old ones
    held[:] = 1
    assert environment.resident_bytes() - before > 0.75 * held.nbytes
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert environment.resident_bytes() < 1.1 * most  # what is only reserved does not count
