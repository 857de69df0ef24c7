"""Data sets named on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compress.recipe import named_data, plugins
from runtimes.errors import InputError


def test_a_name_with_a_root_is_loaded_from_there(make_tree: Callable[..., Path]) -> None:
    data = named_data.load(f"imagefolder:{make_tree('flowers', {'rose': 10, 'tulip': 10})}")
    assert data.classes == ("rose", "tulip")
    assert len(data.train) + len(data.val) + len(data.test) == 20


def test_a_root_may_have_a_colon(make_tree: Callable[..., Path]) -> None:
    root = make_tree("a:b", {"rose": 10, "tulip": 10})
    assert named_data.load(f"imagefolder:{root}").classes == ("rose", "tulip")


def test_a_data_set_without_a_root_needs_only_its_name() -> None:
    assert named_data.load("synthetic").train


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("imagefoldr:/data", "--data: there is no data set 'imagefoldr'; did you mean 'imagefolder'?"),
        ("cifar", "--data: there is no data set 'cifar'; choose from elpv, imagefolder, imagenet, synthetic"),
        ("imagefolder", "imagefolder: names no folder; write it as imagefolder:FOLDER"),
        ("imagenet:", "imagenet:: names no folder; write it as imagenet:FOLDER"),
        ("synthetic:/data", "--data synthetic:/data: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_name_is_an_error(named: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        named_data.load(named)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


ACME = """
from typing import Literal
from compress.images.samples import Data
from compress.recipe.section import Config
class Config(Config):
    name: Literal["acme"] = "acme"
    kind: str = "good"
def load(config):
    return {"good": Data(("a", "b"), (), (), ()), "none": None}[config.kind]
"""


def test_a_package_adds_a_data_set(package: Callable[..., None]) -> None:
    package({"acme_eleven.py": ACME}, {"compress.data": {"acme": "acme_eleven"}})
    assert named_data.load("acme").classes == ("a", "b")
    config = plugins.load("data", "acme").Config
    with pytest.raises(
        InputError, match=r"^the data set 'acme' of the package acme-nets 1\.2 is a NoneType; load must"
    ):
        named_data.load_config(config(kind="none"))
    with pytest.raises(InputError, match=r"1\.2 can't be loaded: KeyError: 'x' \(acme_eleven\.py, line 9\)"):
        named_data.load_config(config(kind="x"))
