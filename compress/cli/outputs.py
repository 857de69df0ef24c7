"""Types of options that name a file or folder to write, checked before any work."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import rich_click as click

from runtimes.errors import InputError


class OutputPath(click.Path):
    """A path to write, whose folder exists or can be made; anything else is an error of one line."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Any: as the class that it extends
        """Return the path; raises InputError if nothing can be written there."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        require_writable(path, param.opts[-1] if param else "path")
        return path


FILE = OutputPath(dir_okay=False, path_type=Path)
FOLDER = OutputPath(file_okay=False, path_type=Path)


def require_writable(path: Path, option: str) -> None:
    """Raise InputError unless a file can be made in the folder `path`, or in the nearest one above that exists."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{option} {path}: is a device, not a file; choose another path")
        folder = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{option} {path}: can't be written ({error.strerror}); choose another path") from error
