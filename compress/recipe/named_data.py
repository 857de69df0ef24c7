"""Load a data set that the command line names as NAME:ROOT."""

from __future__ import annotations

from pydantic import ValidationError

from compress.images.samples import Data
from compress.recipe import plugins
from compress.recipe.errors import near
from runtimes.errors import InputError


def load(named: str) -> Data:
    """Load `NAME:ROOT`, or NAME for a data set without a root; raises InputError if it is unknown or invalid."""
    name, _, root = named.partition(":")
    if name not in plugins.names("data"):
        raise InputError(f"--data: there is no data set '{name}'{near(name, plugins.names('data'))}")
    plugin = plugins.load("data", name)
    try:
        config = plugin.Config(**({"root": root} if root else {}))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--data {named}: {reason}; write it as NAME:ROOT, or NAME alone for elpv") from error
    data: Data = plugin.load(config)
    return data
