"""The folder of a run: its recipe, splits, steps, artifacts and report, locked by the process that works in it.

recipe.yaml splits.json seen.npz run.log report.json report.html report.md accuracy_latency.svg
artifacts/          the exported models
code/               copies of the files that --code named; never executed unless --code names them
steps/NAME-KEY/     results of cached steps (compress.pipeline.steps)
lock                held by the process that works in the folder
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from compress.pipeline import locks
from compress.process import distributed
from compress.recipe.own_code import CodeFile
from runtimes.errors import InputError
from runtimes.files import Json, read_json, write_bytes, write_json, write_text

SCHEMA_VERSION = 1
MARKER, LOCK = "run.json", "lock"
RECIPE, SPLITS, SEEN = "recipe.yaml", "splits.json", "seen.npz"
CODE = "code"  # folder of copies of the files that --code named


class RunFolder:
    """A folder that belongs to the recipe of one name."""

    def __init__(self, path: Path, recipe_name: str, fresh: bool, cache: Path | None = None) -> None:
        """Open or create the folder; `fresh` empties a run folder first.

        cache: folder for the results of steps, which several runs may share; the run folder itself by default. Raises
        InputError for a folder of something else, and for one in which another process works.
        """
        self.path, self.cache = path, cache or path
        self._stack = ExitStack()  # holds the lock until the process ends
        if distributed.is_first():
            self._open(recipe_name, fresh)
        distributed.barrier()
        distributed.require_shared(path / MARKER)

    def _open(self, recipe_name: str, fresh: bool) -> None:
        path, marker = self.path, self.path / MARKER
        require_usable(path, recipe_name)
        if not self._stack.enter_context(locks.held(path / LOCK)):
            raise InputError(f"{path}: {locks.owner(path / LOCK)} works in it; wait for it, stop it, or choose "
                             "another folder with --out")  # fmt: skip
        if fresh:
            _empty(path)
        if not marker.exists():
            write_json(marker, {"schema_version": SCHEMA_VERSION, "recipe": recipe_name})

    def write_inputs(self, recipe_yaml: str, splits: Json, seen: Path, code: Sequence[CodeFile] = ()) -> None:
        """Write the recipe as resolved, which images are in which split, and a copy of `seen`, digests of images.

        code: files with networks of their own, of which copies are kept. Nothing executes the copies.
        """
        for file in code:
            write_bytes(self.path / CODE / file.path.name, file.content)
        write_text(self.path / RECIPE, recipe_yaml)
        write_json(self.path / SPLITS, splits)
        write_bytes(self.path / SEEN, seen.read_bytes())


def require_usable(path: Path, recipe_name: str) -> None:
    """Raise InputError for a path that can't be the run folder of a recipe; another process may work in it."""
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise InputError(f"{part}: is a file; choose another folder with --out")
    if path.is_dir() and {part.name for part in path.iterdir()} - {LOCK}:
        _require_own(path / MARKER, recipe_name)


def _empty(folder: Path) -> None:
    """Remove everything except the lock, which is held."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _require_own(marker: Path, recipe_name: str) -> None:
    try:
        owner = read_json(marker)
        version, recipe = owner["schema_version"], owner["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{marker.parent}: is not empty and no run folder; choose another with --out") from None
    if recipe != recipe_name:
        raise InputError(
            f"{marker.parent}: belongs to the recipe '{recipe}', not to '{recipe_name}'; choose another with --out"
        )
    if version != SCHEMA_VERSION:
        raise InputError(f"{marker.parent}: schema version {version}, not {SCHEMA_VERSION}; choose another with --out")
