"""Targets that a recipe names: YAML files with the settings of a board or class of machine, and its data sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from compress.recipe import errors as recipe_errors
from compress.recipe import strict_yaml
from compress.recipe.section import reject_booleans
from runtimes.errors import InputError
from runtimes.target import Target

SUFFIXES = (".yaml", ".yml")


def shipped() -> list[Path]:
    """Return the files of the targets that come with the toolkit: recipes/targets, or where the wheel has it."""
    package = Path(__file__).parents[1]
    folders = [folder for folder in (package.parent / "recipes", package / "recipes") if (folder / "targets").is_dir()]
    return sorted(folders[0].glob("targets/*.yaml")) if folders else []


def load(name: str) -> Target:
    """Return the target of that name, or that the file at that path holds.

    Raises InputError for an unknown name, with the names that there are, and for a file, with all of its problems.
    """
    path = _path(name)
    content = strict_yaml.read(path)
    content.setdefault("name", path.stem)
    try:
        return TypeAdapter(Target).validate_python(reject_booleans(content, Target))
    except ValidationError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in recipe_errors.lines(error, Target, content))) from None


def from_recipe(section: Any) -> Any:
    """Return what a recipe holds, a name or path replaced by its target; raises ValueError where `load` fails."""
    if not isinstance(section, str):
        return section
    try:
        return load(section)
    except InputError as error:
        raise ValueError(str(error)) from None


def _path(name: str) -> Path:
    if name.endswith(SUFFIXES):
        if not Path(name).is_file():
            raise InputError(f"there is no file '{name}'")
        return Path(name)
    known = {path.stem: path for path in shipped()}
    if name not in known:
        near = recipe_errors.near(name, list(known))
        raise InputError(f"there is no target '{name}', nor is it the path of a YAML file{near}")
    return known[name]
