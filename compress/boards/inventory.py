"""Inventory of the boards that are reached over ssh: a YAML file, or an address on the command line."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from compress.recipe import errors as recipe_errors
from compress.recipe import strict_yaml
from compress.recipe.section import Config
from runtimes.errors import InputError


class Board(Config):
    """One board: a section of the inventory.

    host: name or address.
    user: your own user name by default.
    port: of the SSH server.
    python: a Python on the board that has numpy and the runtime.
    folder: where bundles are stored, relative to the home folder.
    identity: file of a private key; by default those in ~/.ssh and in the ssh agent.
    """

    host: str
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    python: str = "python3"
    folder: str = "compress-bundles"
    identity: Path | None = None


def find_board(name: str, inventory: Path | None) -> Board:
    """Return the board with that name in the inventory, or the one at the address `user@host` or `user@host:port`.

    Raises InputError for an invalid inventory, and for a name that is neither in it nor an address.
    """
    boards = read(inventory) if inventory else {}
    if name in boards:
        return boards[name]
    user, _, address = name.rpartition("@")
    host, _, port = address.partition(":")
    if user and host:
        with contextlib.suppress(ValidationError):  # an invalid port
            return Board.model_validate({"host": host, "user": user, **({"port": port} if port else {})})
    known = f"; {inventory} has {', '.join(boards)}" if boards else "; or name a board of --inventory"
    raise InputError(f"'{name}' is not a board: give user@host or user@host:port{known}")


def read(path: Path) -> dict[str, Board]:
    """Return the boards of an inventory by name; raises InputError with all problems, one per line."""
    boards, problems = {}, []
    for name, section in strict_yaml.read(path).items():
        if not isinstance(section, dict):
            problems.append(f"{path}: {name}: must be a mapping, for example {{host: 10.0.0.8, user: me}}")
            continue
        try:
            boards[str(name)] = Board.model_validate(section)
        except ValidationError as error:
            problems += [f"{path}: {name}.{line}" for line in recipe_errors.lines(error, Board, section)]
    if problems:
        raise InputError("\n".join(problems))
    return boards
