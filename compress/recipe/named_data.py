"""Data sets as a command line names them: NAME:ROOT."""

from __future__ import annotations

from pydantic import ValidationError

from compress.images.samples import Data
from compress.recipe import plugins
from runtimes.errors import InputError


def load(named: str) -> Data:
    """Load `NAME:ROOT`, or NAME alone for a data set that needs no root; raises InputError for a wrong one."""
    name, _, root = named.partition(":")
    if name not in plugins.names("data"):
        raise InputError(f"--data: there is no '{name}'; there are {', '.join(plugins.names('data'))}")
    plugin = plugins.load("data", name)
    try:
        config = plugin.Config(**({"root": root} if root else {}))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--data {named}: {reason}; write it as NAME:ROOT, or NAME alone for elpv") from error
    found: Data = plugin.load(config)
    return found
