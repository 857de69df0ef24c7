"""Lists of what a recipe can name, and the examination of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from compress import doctor
from compress.recipe import plugins
from runtimes import environment
from runtimes.lineage import KernelProbe
from runtimes.target import runtime_names

ROOT = Path(__file__).parents[2]


def test_importing_it_loads_no_heavy_package() -> None:
    code = (
        "import sys, typing, compress.doctor as doctor\n"
        "for kind in typing.get_args(doctor.Listed): assert doctor.listing(kind)\n"
        "print([name for name in ('torch', 'torchvision', 'onnx', 'onnxruntime', 'timm') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


@pytest.mark.parametrize("kind", get_args(doctor.Listed))
def test_everything_has_a_description_on_one_line(
    kind: doctor.Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = doctor.listing(kind)
    assert entries
    assert all(description.strip() and "\n" not in description for _, description in entries)
    assert len({name for name, _ in entries}) == len(entries)


def test_the_lists_are_complete() -> None:
    assert [name for name, _ in doctor.listing("models")] == plugins.names("models")
    assert [name for name, _ in doctor.listing("runtimes")] == runtime_names()
    assert {name for name, _ in doctor.listing("recipes")} >= {"smoke", "imagenet/resnet50_int8"}
    assert {name for name, _ in doctor.listing("targets")} >= {"raspberry-pi-5", "jetson-orin-nano"}
    assert dict(doctor.listing("data"))["synthetic"] == (plugins.load("data", "synthetic").__doc__ or "").split("\n")[0]


@pytest.mark.parametrize("pattern", ["*", "*.*"])
def test_the_lines_about_timm_have_at_most_80_columns(pattern: str) -> None:
    lines = doctor.timm_listing(pattern)
    assert len(lines) > 1000
    assert [line for line in lines if len(line) > 80 or " px  " not in line] == []


@pytest.mark.parametrize("kind", doctor.FILES)
def test_the_description_of_a_file_is_a_whole_sentence(kind: doctor.Listed) -> None:
    assert [line for _, line in doctor.listing(kind) if not line.endswith(".")] == []


def test_a_file_without_a_comment_or_docstring_has_an_empty_description(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\n# later\n")
    (tmp_path / "module.py").write_text("x = 1\n")
    assert doctor._first_comment(tmp_path / "recipe.yaml") == ""
    assert doctor._first_line(tmp_path / "module.py") == ""


def test_the_examination_names_the_machine_and_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_integer_kernels", lambda: "")
    findings = dict(doctor.examine())
    machine = environment.describe()
    assert findings["python"] == machine.python
    assert f"{machine.cores} cores" in findings["processor"]
    assert findings["instruction set"].startswith(f"{machine.instruction_set}: ")
    assert set(doctor.NEEDED_BY) < set(findings)
    assert findings["onnx"] == machine.versions["onnx"]


def test_a_missing_package_names_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    findings = dict(doctor.examine())
    assert findings["nncf"] == "missing; needed by quantize.method nncf: pip install 'compress-classifiers[host]'"
    assert findings["integer kernels"] == "unknown without onnxruntime and onnx"
    assert findings["GPU"] == "unknown without torch"


@pytest.mark.parametrize(
    ("kernels", "finding"),
    [
        (KernelProbe(False, False, False, True), "measured: sums with 8-bit weights are exact"),
        (
            KernelProbe(True, False, True, True),
            "measured: 8-bit weights saturate in convolutions, Gemm; sums with limited weights are exact",
        ),
        (
            KernelProbe(False, True, False, False),
            "measured: 8-bit weights saturate in depthwise convolutions; sums with limited weights are wrong, too; "
            "use the target generic",
        ),
    ],
)
def test_the_finding_about_integer_kernels(kernels: KernelProbe, finding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.quantization.probe.probe", lambda: kernels)
    assert doctor._integer_kernels() == finding


def test_plug_ins_of_packages_are_listed_with_their_package_or_what_is_wrong(package: Callable[..., None]) -> None:
    text = '''"""Pixels of a camera.

More.
"""
from typing import Literal
from compress.recipe.section import Config
class Config(Config):
    name: Literal["camera"] = "camera"
def load(config): return None
'''
    points = {"camera": "acme_nine", "broken": "acme_ten", "elpv": "acme_nine"}
    package({"acme_nine.py": text, "acme_ten.py": "1 / 0"}, {"compress.data": points})
    (_, broken), camera, (_, elpv) = doctor.listing("data")[-3:]
    assert camera == ("camera", "Pixels of a camera. (package acme-nets 1.2)")
    assert broken.startswith("unusable: the package acme-nets 1.2: its plug-in 'broken' of compress.data can't be")
    assert elpv.startswith("unusable: 'elpv' is registered by compress and by acme-nets 1.2")
