"""Find and load plug-ins: modules with a `Config` and one function.

Built-in ones are the files compress/<kind>/<name>.py. Installed packages register others, see `installed`, and the
command line names files with networks, see `own_code`. Nothing of these is imported unless a recipe uses it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

from pydantic import Field, SerializeAsAny, ValidationError, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

from compress.recipe import installed, own_code
from compress.recipe.installed import TAG as TAG
from compress.recipe.installed import Kind as Kind
from compress.recipe.installed import Plugin
from compress.recipe.names import near
from compress.recipe.section import Config
from runtimes.errors import InputError
from runtimes.files import Json

Section: TypeAlias = Any  # of a recipe, or the Config that it became

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Origin:
    """The code of a plug-in that is not built in. owner: name of a file, or of a package with its version."""

    owner: str
    sha256: str

    def line(self, name: str) -> str:
        """Return one line about the plug-in for people."""
        return f"{name} is code of {self.owner}, sha256 {self.sha256}"


_origins: dict[type[Config], Callable[[], Origin]] = {}


def built_in(kind: Kind) -> list[str]:
    """Return the names of the plug-ins of a kind that are files of the toolkit, sorted."""
    return sorted(path.stem for path in (Path(__file__).parents[1] / kind).glob("[a-z]*.py"))


def names(kind: Kind) -> list[str]:
    """Return the names of all plug-ins of a kind, sorted."""
    return sorted({*built_in(kind), *installed.all_of(kind)})


def registered(tag: str) -> list[str]:
    """Return the names that installed packages register for a key of TAG; none for another key."""
    return sorted({name for kind in KINDS if TAG[kind] == tag for name in installed.all_of(kind)})


def load(kind: Kind, name: str) -> Plugin:
    """Import the plug-in `name` and return it, a module or what has the same attributes.

    Raises InputError for an unknown name, one that several packages use, code that the command line does not name,
    and a plug-in that can't be imported or lacks a part.
    """
    if kind == "models" and own_code.is_name(name):
        own = own_code.network(name)
        _origins[own.Config] = lambda: Origin(own.file.path.name, own.file.sha256)
        return own
    owners = installed.all_of(kind).get(name, ())
    is_built_in = name in built_in(kind)
    packages = [*(["compress"] if is_built_in else []), *(owner.package for owner in owners)]
    if not packages:
        raise InputError(f"there is no '{name}'{near(name, names(kind))}")
    if len(packages) > 1:
        raise InputError(
            f"'{name}' is registered by {' and by '.join(packages)}; uninstall a package, or rename its entry point"
        )
    if is_built_in:
        return importlib.import_module(f"compress.{kind}.{name}")
    (owner,) = owners
    plugin = owner.load()
    _origins[plugin.Config] = lambda: Origin(owner.package, owner.sha256())
    return plugin


def published(section: Section) -> str | None:
    """Return the name under which torchvision publishes weights of a network, None if it does not."""
    find = getattr(load("models", section.arch), "published", None)
    name: str | None = find(section) if find else None
    return name


def origin(section: Config) -> Origin | None:
    """Return the code of the plug-in whose Config the section is; None for a section of the toolkit."""
    find = _origins.get(type(section))
    return find() if find else None


def described(section: Section) -> Json:
    """Return a section as JSON, with the code of its plug-in if that is not built in."""
    code = origin(section)
    content: Json = section.model_dump(mode="json")
    return content if code is None else {**content, "code": {"owner": code.owner, "sha256": code.sha256}}


def configs(name: str) -> list[type[Config]]:
    """Return the Configs of the imported plug-ins of that name that are not built in."""
    return [config for config in _origins if name in (config.model_fields[tag].default for tag in TAG.values()
                                                      if tag in config.model_fields)]  # fmt: skip


def config_union(kind: Kind) -> Any:  # Any: a type annotation for pydantic
    """Return the type of a section that selects a plug-in of a kind by the kind's TAG.

    Its JSON Schema is that of the built-in ones; others are imported when a section names them.
    """
    own = [importlib.import_module(f"compress.{kind}.{name}").Config for name in built_in(kind)]
    as_is = SerializeAsAny()  # type: ignore[type-arg]  # an alias for type checkers
    return Annotated[reduce(or_, own), Field(discriminator=TAG[kind]), as_is, WrapValidator(partial(_validated, kind))]


def _validated(kind: Kind, section: Section, handler: Callable[[Section], Config]) -> Config:
    """Validate a section by the Config of its plug-in; problems have their place in the section."""
    tag = TAG[kind]
    name = section.get(tag) if isinstance(section, dict) else getattr(section, tag, None)
    if not isinstance(name, str) or not (name in names(kind) or own_code.is_name(name)):
        return handler(section)
    try:
        plugin = load(kind, name)
    except InputError as error:
        raise _invalid([_problem("value_error", (name, tag), str(error))]) from None
    if name in built_in(kind):
        return handler(section)
    try:
        config: Config = plugin.Config.model_validate(section)
    except ValidationError as error:
        raise _invalid([
            _problem(line["type"], (name, *line["loc"]), line["msg"], line.get("ctx"))
            for line in error.errors(include_url=False)
        ]) from None  # fmt: skip
    return config


def _problem(kind: str, location: tuple[int | str, ...], message: str, context: Json | None = None) -> InitErrorDetails:
    """Return a problem of a section as pydantic describes those of its unions, whose locations begin with the tag."""
    text = PydanticCustomError(kind, "{message}", {**(context or {}), "message": message})
    return InitErrorDetails(type=text, loc=location, input=None)


def _invalid(problems: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data("section", problems)
