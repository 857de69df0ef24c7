"""Find the files that come with the toolkit, from any directory: recipes, sweeps and targets."""

from __future__ import annotations

import difflib
from pathlib import Path

from runtimes.errors import InputError


def folder() -> Path:
    """Return the folder `recipes` of the installed wheel or of the repository."""
    package = Path(__file__).parents[1]
    in_wheel = package / "recipes"
    return in_wheel if in_wheel.is_dir() else package.parent / "recipes"


def recipes() -> dict[str, Path]:
    """Return the shipped recipes by name, for example `mobilenet_int8` and `imagenet/resnet50_int8`."""
    return {**_files(""), **{f"imagenet/{name}": path for name, path in _files("imagenet").items()}}


def sweeps() -> dict[str, Path]:
    """Return the shipped sweep files by name."""
    return _files("sweeps")


def targets() -> dict[str, Path]:
    """Return the shipped target files by name."""
    return _files("targets")


def find(name: str, known: dict[str, Path], below: Path = Path()) -> Path:
    """Return the path of `name`: a file in the folder `below`, else one of the `known` shipped files by its name.

    Of anything else, the path is returned, so that reading it says what is wrong; raises InputError with the nearest
    shipped name, if there is one.
    """
    path = below / name
    if path.exists() and not path.is_dir():
        return path
    if name in known:
        return known[name]
    names_by_end = {Path(known_name).name: known_name for known_name in known}
    close = difflib.get_close_matches(Path(name).stem.lower(), names_by_end, n=1)
    if close and not path.exists():
        raise InputError(f"{path}: no such file; did you mean the shipped '{names_by_end[close[0]]}'?")
    return path


def _files(subfolder: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((folder() / subfolder).glob("*.yaml"))}
