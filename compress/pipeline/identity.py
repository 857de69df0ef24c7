"""Identity of a value: JSON that differs where a result that depends on the value can differ."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from compress.networks import hub
from compress.recipe import plugins
from compress.recipe.section import Config
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.backends import trt
from runtimes.files import JsonValue, sha256_file
from runtimes.target import Target

PACKAGE = "package:"  # of a setting that names an installed package


@runtime_checkable
class Identified(Protocol):
    """A value that knows its identity: a data set, a checkpoint, the images of a split."""

    def identity(self) -> JsonValue:
        """Return what identifies the value, by content."""


def identity(value: object) -> JsonValue:
    """Return what identifies an argument of a step; raises TypeError for a type that has no rule.

    Files and artifacts count by content. A target that is on this machine counts with the environment that decides its
    latency and predictions. A setting that names a file counts by the file's bytes, `hf:REPO` by those of its file in
    the cache, `package:NAME` by its version. The section of a plug-in that is not built in counts with the plug-in's
    code.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)  # pydantic keeps a default of 0 as it is and turns a given 0 into 0.0
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Identified):
        return value.identity()
    if isinstance(value, Config):
        if plugins.origin(value) is not None:  # its values may be of any type
            return _setting(plugins.described(value))
        return {name: _setting(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Path):
        return file_sha256(value)
    if isinstance(value, Artifact):
        return {"sha256": value.manifest.sha256, "manifest": identity(dataclasses.asdict(value.manifest))}
    if isinstance(value, Target):
        return {**dataclasses.asdict(value), "environment": _environment(value)}
    if dataclasses.is_dataclass(value):
        return {field.name: identity(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): identity(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [identity(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(identity(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a step can't depend on a {type(value).__name__}: identity has no rule for it")


def file_sha256(path: Path) -> str:
    """Return a file's sha256, computed once in a process for each version of the file."""
    status = path.stat()
    return _sha256(path, status.st_ino, status.st_ctime_ns)  # programs can set mtime, but not ctime


@functools.cache
def _sha256(path: Path, inode: int, ctime_ns: int) -> str:
    return sha256_file(path)


def _setting(value: object) -> JsonValue:
    """Return the identity of a value of a recipe's section."""
    if isinstance(value, str):
        if value.startswith(PACKAGE):
            return {"package": value, "version": _version(value.removeprefix(PACKAGE))}
        if value.startswith(hub.HUB):
            file = hub.cached(value)
            return {"sha256": file_sha256(file)} if file else value
        return {"sha256": file_sha256(Path(value))} if _is_file(value) else value
    if isinstance(value, (list, tuple)):
        return [_setting(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _setting(item) for key, item in value.items()}
    return identity(value)


def _is_file(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, or with a NUL byte
        return False


def _version(module: str) -> list[str]:
    """Return the versions of the distributions that hold a top-level module; none where it is not installed."""
    return sorted(f"{name} {metadata.version(name)}" for name in set(_distributions().get(module, ())))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _environment(target: Target) -> JsonValue:
    """Return what decides a target's results on this machine; None where the target is another machine.

    Without the number of cores that this process may use: a run under `taskset` is the same run.
    """
    if environment.why_not_here(target) is not None:
        return None
    here = environment.describe().for_runtimes()
    del here["cores"]
    gpu = trt.compute_capability() if target.provider == "cuda" else None
    return {**here, "compute_capability": gpu}
