"""Plug-ins of installed packages, which register them as entry points of the group `compress.KIND`."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

from compress.recipe import foreign
from compress.recipe.section import Config, NetworkConfig
from runtimes.errors import InputError

Kind = Literal["models", "data", "stages"]
Plugin: TypeAlias = Any  # a module with `Config` and one function

TAG = {"models": "arch", "data": "name", "stages": "stage"}  # key of a recipe that selects the plug-in
FUNCTION = {"models": "build", "data": "load", "stages": "run"}
BASE: dict[str, type[Config]] = {"models": NetworkConfig, "data": Config, "stages": Config}
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # names are also parts of paths


@dataclass(frozen=True)
class Installed:
    """A plug-in of an installed package. package: name and version of the distribution."""

    kind: Kind
    name: str
    package: str
    point: metadata.EntryPoint

    def load(self) -> Plugin:
        """Import the plug-in; raises InputError with the name of the package where it is unusable."""
        what = f"the package {self.package}: its plug-in '{self.name}' of compress.{self.kind}"
        with foreign.one_line(f"{what} can't be imported"):
            plugin = self.point.load()
        function, tag, base = FUNCTION[self.kind], TAG[self.kind], BASE[self.kind]
        config = getattr(plugin, "Config", None)
        if not (isinstance(config, type) and issubclass(config, base)):
            raise InputError(f"{what} has no Config, a subclass of {base.__module__}.{base.__name__}")
        if not callable(getattr(plugin, function, None)):
            raise InputError(f"{what} has no function {function}")
        if tag not in config.model_fields or config.model_fields[tag].default != self.name:
            raise InputError(f"{what} must have in its Config: {tag}: Literal['{self.name}'] = '{self.name}'")
        return plugin

    def sha256(self) -> str:
        """Return the digest of the source files of the plug-in's package; the plug-in has been imported."""
        return _digest(self.point.module)


def all_of(kind: Kind) -> dict[str, tuple[Installed, ...]]:
    """Return the registered plug-ins of a kind by name: several where packages use one name. Imports none."""
    return _registered(kind, tuple(sys.path))


@functools.cache
def _registered(kind: Kind, path: tuple[str, ...]) -> dict[str, tuple[Installed, ...]]:
    registered: dict[str, tuple[Installed, ...]] = {}
    for point in metadata.entry_points(group=f"compress.{kind}"):
        if NAME.fullmatch(point.name):
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "of an unknown name"
            registered[point.name] = (*registered.get(point.name, ()), Installed(kind, point.name, package, point))
    return registered


@functools.cache
def _digest(module: str) -> str:
    """Return the digest of the Python files of the outermost package, not a namespace, that holds a module."""
    parts = module.split(".")
    parents = (sys.modules.get(".".join(parts[:length])) for length in range(1, len(parts) + 1))
    file = next((Path(parent.__file__) for parent in parents if parent and parent.__file__), None)
    digest = hashlib.sha256()
    if file is not None and file.is_file():
        for path in sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]:
            digest.update(path.relative_to(file.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
