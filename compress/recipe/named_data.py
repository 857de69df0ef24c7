"""Load a data set that the command line names as NAME:ROOT."""

from __future__ import annotations

from pydantic import ValidationError

from compress.images.samples import Data
from compress.recipe import foreign, plugins
from compress.recipe.names import near
from compress.recipe.section import Config
from runtimes.errors import InputError


def config_of(named: str) -> Config:
    """Return the settings of `NAME:ROOT`, or NAME for a data set without a root; raises InputError if invalid."""
    name, _, root = named.partition(":")
    if name not in plugins.names("data"):
        raise InputError(f"--data: there is no data set '{name}'{near(name, plugins.names('data'))}")
    if not root and "root" in plugins.load("data", name).Config.model_fields:
        raise InputError(f"{named}: names no folder; write it as {name}:FOLDER")
    try:
        config: Config = plugins.load("data", name).Config(**({"root": root} if root else {}))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--data {named}: {reason}; write it as NAME:ROOT, or NAME alone for elpv") from error
    return config


def load(named: str) -> Data:
    """Load the data set that `config_of` describes."""
    return load_config(config_of(named))


def load_config(config: Config) -> Data:
    """Load the data set of a section `data`."""
    plugin = plugins.load("data", name_of(config))
    code = plugins.origin(config)
    if code is None:
        data: Data = plugin.load(config)
        return data
    what = f"the data set '{name_of(config)}' of the package {code.owner}"
    with foreign.one_line(f"{what} can't be loaded"):
        data = plugin.load(config)
    if not isinstance(data, Data):
        raise InputError(f"{what} is a {type(data).__name__}; load must return a compress.images.samples.Data")
    return data


def name_of(config: Config) -> str:
    """Return the name of the data set of a section `data`."""
    return str(config.model_dump()["name"])
