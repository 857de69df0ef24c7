"""Plug-ins of installed packages: found without import, checked when loaded, identified by version and code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.recipe import installed
from runtimes.errors import InputError

Package = Callable[..., None]

GOOD = '''"""Acme's network."""
from typing import Literal
from compress.recipe.section import NetworkConfig
class Config(NetworkConfig):
    arch: Literal["acme"] = "acme"
    width: int = 8
def build(config, num_classes):
    raise ZeroDivisionError
'''
POINTS = {"compress.models": {"acme": "acme_one"}}


def test_plug_ins_are_listed_without_import(package: Package) -> None:
    package({"acme_one.py": "raise RuntimeError"}, POINTS)
    (found,) = installed.all_of("models")["acme"]
    assert (found.name, found.package) == ("acme", "acme-nets 1.2")
    assert "acme_one" not in sys.modules
    assert "acme" not in installed.all_of("data")


def test_names_that_are_no_part_of_a_path_are_left_out(package: Package) -> None:
    package({}, {"compress.stages": {"../evil": "acme_one", "a b": "acme_one"}})
    assert installed.all_of("stages") == {}


def test_a_plug_in_is_loaded_with_its_parts(package: Package) -> None:
    package({"acme_one.py": GOOD}, POINTS)
    (found,) = installed.all_of("models")["acme"]
    assert found.load().Config().width == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module", r"can't be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def build(:", r"can't be imported: SyntaxError: .*\(acme_two.py, line 1\)"),
        ("raise SystemExit(2)", "can't be imported: SystemExit: 2"),
        ("", "has no Config, a subclass of compress.recipe.section.NetworkConfig"),
        ("from compress.recipe.section import Config", "has no Config, a subclass of"),
        (GOOD.replace("def build", "def make"), "has no function build"),
        (GOOD.replace('"acme"', '"other"'), r"must have in its Config: arch: Literal\['acme'\] = 'acme'"),
    ],
)
def test_an_unusable_plug_in_is_one_line_with_its_package(package: Package, text: str, message: str) -> None:
    package({"acme_two.py": text}, {"compress.models": {"acme": "acme_two"}})
    (found,) = installed.all_of("models")["acme"]
    with pytest.raises(InputError, match=rf"^the package acme-nets 1\.2: its plug-in 'acme' .*{message}") as caught:
        found.load()
    assert "\n" not in str(caught.value)


def test_the_digest_is_of_all_files_of_the_package(package: Package, tmp_path: Path) -> None:
    files = {"acme_three/__init__.py": "", "acme_three/nets/__init__.py": "", "acme_three/nets/one.py": GOOD}
    package({**files, "acme_three/layers.py": "A = 1"}, {"compress.models": {"acme": "acme_three.nets.one"}})
    (found,) = installed.all_of("models")["acme"]
    found.load()
    before = found.sha256()
    for changed in ("layers.py", "nets/one.py"):
        (tmp_path / "site/acme_three" / changed).write_text(f"changed = '{changed}'")
        installed._digest.cache_clear()
        assert found.sha256() != before
        before = found.sha256()
