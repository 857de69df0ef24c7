"""Read targets: YAML files with the settings and the data sheet of a board or a class of machines."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from compress.recipe import errors as recipe_errors
from compress.recipe import shipped, strict_yaml
from compress.recipe.names import near
from compress.recipe.section import reject_booleans
from compress.recipe.strict_yaml import YamlValue
from runtimes.errors import InputError
from runtimes.target import Target

SUFFIXES = (".yaml", ".yml")


def load(name: str) -> Target:
    """Return the target `name`, a target of the toolkit or the path of a YAML file.

    Raises InputError with the known names if the name is unknown, or with all problems of the file.
    """
    path = _path(name)
    content = strict_yaml.read(path, "targets")
    content.setdefault("name", path.stem)
    try:
        return TypeAdapter(Target).validate_python(reject_booleans(content, Target))
    except ValidationError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in recipe_errors.lines(error, Target, content))) from None


def from_recipe(section: YamlValue) -> Target | YamlValue:
    """Return the target if `section` is a name or path, else `section` itself; raises ValueError if `load` fails."""
    if not isinstance(section, str):
        return section
    try:
        return load(section)
    except InputError as error:
        raise ValueError(str(error)) from None


def _path(name: str) -> Path:
    if name.endswith(SUFFIXES):
        if not Path(name).is_file():
            raise InputError(f"no such file: '{name}'")
        return Path(name)
    known = shipped.targets()
    if name not in known:
        advice = near(name, list(known))
        raise InputError(f"'{name}' is neither a known target nor the path of a YAML file{advice}")
    return known[name]
