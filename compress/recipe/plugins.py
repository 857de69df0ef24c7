"""Plug-ins are files: compress/<kind>/<name>.py holds `Config` and one function; its name is its name in a recipe."""

from __future__ import annotations

import importlib
from functools import reduce
from operator import or_
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field

Kind = Literal["models", "data", "stages"]
TAG = {"models": "arch", "data": "name", "stages": "stage"}  # the key that names the plug-in in a recipe


def names(kind: Kind) -> list[str]:
    """Return the names of the plug-ins that there are."""
    return sorted(path.stem for path in (Path(__file__).parents[1] / kind).glob("[a-z]*.py"))


def load(kind: Kind, name: str) -> ModuleType:
    """Import one plug-in; `name` is one of `names(kind)`."""
    return importlib.import_module(f"compress.{kind}.{name}")


def config_union(kind: Kind) -> Any:
    """Return the type of a recipe's section: the Config of any plug-in of that kind, chosen by its tag."""
    configs = [load(kind, name).Config for name in names(kind)]
    return Annotated[reduce(or_, configs), Field(discriminator=TAG[kind])]
