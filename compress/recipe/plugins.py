"""Find and load plug-ins: files compress/<kind>/<name>.py with a `Config` and one function."""

from __future__ import annotations

import importlib
from functools import reduce
from operator import or_
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field

Kind = Literal["models", "data", "stages"]
TAG = {"models": "arch", "data": "name", "stages": "stage"}  # key of a recipe that selects the plug-in


def names(kind: Kind) -> list[str]:
    """Return the names of all plug-ins of a kind, sorted."""
    return sorted(path.stem for path in (Path(__file__).parents[1] / kind).glob("[a-z]*.py"))


def load(kind: Kind, name: str) -> ModuleType:
    """Import the plug-in `name`, one of `names(kind)`, and return its module."""
    return importlib.import_module(f"compress.{kind}.{name}")


def config_union(kind: Kind) -> Any:  # Any: a type annotation for pydantic
    """Return the union of the Configs of all plug-ins of a kind, discriminated by the kind's TAG."""
    configs = [load(kind, name).Config for name in names(kind)]
    return Annotated[reduce(or_, configs), Field(discriminator=TAG[kind])]
