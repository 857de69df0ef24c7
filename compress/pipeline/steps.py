"""Cached steps: a function's results on disk, under a key computed from its arguments, so that a run resumes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from compress.pipeline import locks
from compress.pipeline.identity import identity
from compress.process import distributed
from compress.process.code_digest import code_digest
from compress.process.tracking import Track
from runtimes.console import Console, SilentConsole
from runtimes.environment import package_versions
from runtimes.files import Json, read_json, write_json

DONE, LOCK = "done.json", "lock"
MISSING = "no-such-step"  # a folder that never exists
TRAINING_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "safetensors")
RESULT_PACKAGES = (*TRAINING_PACKAGES, "onnx", "onnxscript", "onnxruntime", "nncf", "scipy")

Parameters = ParamSpec("Parameters")
Function = TypeVar("Function", bound=Callable[..., None])


@dataclass(frozen=True)
class Step:
    """Folder and services of a running step. Nothing here can change the step's results.

    folder: keeps what an interrupted attempt left. cache: results that steps share, such as calibration ranges.
    """

    name: str
    folder: Path
    cache: Path
    console: Console
    track: Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Options:
    """Options of a step's function. packages: installed packages whose versions are part of the key.

    collective: all processes of torchrun run it, not the first alone.
    """

    packages: tuple[str, ...] = RESULT_PACKAGES
    collective: bool = False


_OPTIONS: dict[Callable[..., None], Options] = {}


def step_options(
    packages: tuple[str, ...] = RESULT_PACKAGES, collective: bool = False
) -> Callable[[Function], Function]:
    """Return a decorator that sets the options of a step's function."""

    def register(function: Function) -> Function:
        _OPTIONS[function] = Options(packages, collective)
        return function

    return register


class Steps:
    """The steps of one run, with their results in `cache`/steps/NAME-KEY/.

    done.json is written last; without it a step is not done. Runs may share a cache.
    """

    def __init__(self, cache: Path, console: Console, track: Track) -> None:
        self.console = console
        self.cache, self._track = cache, track
        self.folders: dict[str, Path] = {}  # of this run's steps by name, in order
        self._package_versions = functools.cache(package_versions)  # looked up once, not for each step

    def run(
        self,
        function: Callable[Concatenate[Step, Parameters], None],
        name: str,
        /,
        *positional: Parameters.args,
        **arguments: Parameters.kwargs,
    ) -> Path:
        """Return the folder with the results of `function(step, **arguments)`; call it only if they are not there.

        The key is the sha256 of the function's qualified name, the identity of each argument, package versions and the
        digest of the code that can change results. An unfinished folder with the same key is passed to the function
        again, which may resume from it. Raises TypeError for an argument without an identity.
        """
        options = _OPTIONS.get(function, Options())
        named = _named(function, *positional, **arguments)
        with ExitStack() as stack:
            begin = partial(self._begin, function, name, named, stack)
            text, content, missing = distributed.from_first(begin)
            folder = Path(text)
            if missing:
                start = time.monotonic()
                if options.collective or distributed.is_first():
                    step = Step(name, folder, self.cache, self.console, partial(self._track, folder.name))
                    function(step, *positional, **arguments)
                if distributed.is_first():
                    write_json(folder / DONE, {**content, "duration_s": round(time.monotonic() - start, 2)})
                distributed.barrier()
        self.folders[name] = folder
        return folder

    def _begin(
        self, function: Callable[..., None], name: str, arguments: Json, stack: ExitStack
    ) -> tuple[str, Json, bool]:
        """Return the step's folder, the content of its key, and whether this process must run it."""
        folder, content = self._keyed(function, name, arguments)
        if duration_s(folder) is None:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.held(folder / LOCK, wait=True))  # another run may share the cache
        return str(folder), content, duration_s(folder) is None

    def _keyed(self, function: Callable[..., None], name: str, arguments: Json) -> tuple[Path, Json]:
        """Return the step's folder, which need not exist, and the content of its key."""
        content = {
            "step": name,
            "function": f"{function.__module__}.{function.__qualname__}",
            "arguments": identity(arguments),
            "packages": self._package_versions(_OPTIONS.get(function, Options()).packages),
            "code": code_digest(),
        }
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self.cache / "steps" / f"{name}-{key[:12]}", {**content, "key": key}

    def durations_s(self) -> dict[str, float]:
        """Return how long each step of this run took when it ran, in order."""
        return {name: duration_s(folder) or 0.0 for name, folder in self.folders.items()}


class KnownSteps(Steps):
    """Steps that never run: `folders` gets those whose results are in the cache, `missing` the names of others."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache, SilentConsole(), lambda step, epoch, values: None)
        self.missing: dict[str, None] = {}  # in order

    def run(
        self,
        function: Callable[Concatenate[Step, Parameters], None],
        name: str,
        /,
        *positional: Parameters.args,
        **arguments: Parameters.kwargs,
    ) -> Path:
        """Return the folder with the results, or one that does not exist if they are not there.

        A step whose arguments are results that are not there yet has none either.
        """
        with suppress(FileNotFoundError):
            folder, _ = self._keyed(function, name, _named(function, *positional, **arguments))
            if duration_s(folder) is not None:
                self.folders[name] = folder
                return folder
        self.missing[name] = None
        return self.cache / MISSING


def duration_s(folder: Path) -> float | None:
    """Return how long a finished step took; None for a step that is not done, or whose done.json is damaged."""
    try:
        return float(read_json(folder / DONE)["duration_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _named(function: Callable[..., None], *positional: object, **arguments: object) -> Json:
    """Return a step's arguments by name, with defaults."""
    bound = inspect.signature(function).bind(None, *positional, **arguments)
    bound.apply_defaults()
    _, *values = bound.arguments.items()
    return dict(values)
