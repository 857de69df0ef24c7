"""The run folder: every step's result under the content of all that went into it, so that a run resumes by itself.

recipe.yaml splits.json run.log report.json report.html report.md accuracy_latency.svg   what a reader wants
artifacts/                                                                   what ships
lock                                                                         held by the process that works in it
steps/<name>-<key>/  results of a step, with done.json written last; without it the step is not done
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from compress.pipeline import locks
from compress.process import distributed
from compress.process.code_digest import code_digest
from runtimes.environment import package_versions
from runtimes.errors import InputError
from runtimes.files import read_json, write_json

SCHEMA_VERSION = 1
MARKER, DONE, LOCK = "run.json", "done.json", "lock"


class RunFolder:
    """A folder that belongs to the recipe of one name."""

    def __init__(self, path: Path, recipe_name: str, fresh: bool, cache: Path | None = None) -> None:
        """Open or make the folder; `fresh` empties a run folder first.

        cache: where the steps' results lie, which several runs may share; the run folder itself unless given. Raises
        InputError for any other folder, and for one that another process works in.
        """
        self.path, self.cache = path, cache or path
        self.steps: dict[str, Path] = {}
        self._held = ExitStack()  # until the process ends
        if distributed.is_first():
            self._open(recipe_name, fresh)
        distributed.barrier()
        distributed.require_shared(path / MARKER)

    def _open(self, recipe_name: str, fresh: bool) -> None:
        path, marker = self.path, self.path / MARKER
        for part in (path, *path.parents):
            if part.exists() and not part.is_dir():
                raise InputError(f"{part}: is a file; choose another folder with --out")
        if path.is_dir() and {part.name for part in path.iterdir()} - {LOCK}:
            _require_own(marker, recipe_name)
        if not self._held.enter_context(locks.held(path / LOCK)):
            raise InputError(f"{path}: {locks.owner(path / LOCK)} works in it; wait for that, stop it, or choose "
                             "another folder with --out")  # fmt: skip
        if fresh:
            _empty(path)
        if not marker.exists():
            write_json(marker, {"schema_version": SCHEMA_VERSION, "recipe": recipe_name})

    def step(
        self, name: str, inputs: Any, packages: tuple[str, ...], make: Callable[[Path], None], together: bool = False
    ) -> Path:
        """Return the folder of a step's results; `make(folder)` is called only if they are not there yet.

        inputs: what the results depend on, as JSON; packages: names of installed packages whose versions matter. An
        unfinished folder of the same inputs is handed to `make` again, which may resume from what it left there.
        together: all processes call it, not the first alone.
        """
        with ExitStack() as held:
            folder, content, missing = distributed.from_first(lambda: self._begin(name, inputs, packages, held))
            path = Path(folder)
            if missing:
                start = time.monotonic()
                if together or distributed.is_first():
                    make(path)
                if distributed.is_first():
                    write_json(path / DONE, {**content, "duration_s": round(time.monotonic() - start, 2)})
                distributed.barrier()
        self.steps[name] = path
        return path

    def _begin(
        self, name: str, inputs: Any, packages: tuple[str, ...], held: ExitStack
    ) -> tuple[str, dict[str, Any], bool]:
        """Return the step's folder, what identifies it, and whether it is still to be done, by this process alone."""
        content = {"step": name, "inputs": inputs, "packages": package_versions(packages), "code": code_digest()}
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        folder = self.cache / "steps" / f"{name}-{key[:12]}"
        if not (folder / DONE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.held(folder / LOCK, wait=True))  # for another run that shares the cache
        return str(folder), {**content, "key": key}, not (folder / DONE).exists()

    def durations_s(self) -> dict[str, float]:
        """Return how long each step of this run took when it was done, in order."""
        return {name: read_json(folder / DONE)["duration_s"] for name, folder in self.steps.items()}


def _empty(folder: Path) -> None:
    """Remove all but the lock that is held."""
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
