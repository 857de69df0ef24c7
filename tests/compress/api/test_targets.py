"""The argument `target`: names, paths, targets and schemes."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.api.targets import scheme_name, target_here, target_of
from runtimes import environment
from runtimes.errors import InputError, UnavailableError
from runtimes.target import Target


def test_a_target_is_a_name_a_path_or_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("threads: 2\n")
    assert target_of(None) == Target("local")
    assert target_of(path) == target_of(str(path)) == Target("mine", threads=2)
    assert target_of(Target("a", batch=3)) == Target("a", batch=3)
    assert target_of("desktop-cpu").name == "desktop-cpu"


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"target: 'desktop' is neither a known target nor .* did you mean 'desktop-cp"
    ):
        target_of("desktop")


def test_only_a_target_of_this_machine_can_be_measured() -> None:
    other = "x86-avx2" if environment.detect_instruction_set() == "arm64" else "arm64"
    assert target_here(Target("here")) == Target("here")
    with pytest.raises(UnavailableError, match="target 'there' can't be measured on this machine: it has the instr"):
        target_here(Target("there", instruction_set=other))  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "scheme"), [
    (None, "auto"), ("auto", "auto"), ("generic", "generic"),
    ("raspberry-pi-5", "arm64"), ("jetson-orin-nano", "tensorrt"),
    (Target("a", instruction_set="x86-avx2"), "x86-avx2"),
])  # fmt: skip
def test_a_target_has_a_scheme(target: Target | str | None, scheme: str) -> None:
    assert scheme_name(target) == scheme


def test_an_unknown_scheme_lists_the_schemes() -> None:
    with pytest.raises(InputError, match=r"'int4' is neither .*; schemes are auto, x86-avx2, x86-vnni, arm64"):
        scheme_name("int4")
