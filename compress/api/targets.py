"""The argument `target` of the Python API: a target, its name, the path of its file, or None for this machine's CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from compress.quantization.schemes import SCHEMES, scheme_for
from compress.recipe import targets
from runtimes import environment
from runtimes.errors import InputError, UnavailableError
from runtimes.target import Target

TargetOrName: TypeAlias = Target | str | Path | None


def target_of(target: TargetOrName) -> Target:
    """Return the target; raises InputError for an unknown name."""
    if target is None:
        return Target("local")
    if isinstance(target, Target):
        return target
    try:
        return targets.load(str(target))
    except InputError as error:
        raise InputError(f"target: {error}") from error


def target_here(target: TargetOrName) -> Target:
    """Return a target that this machine can measure; raises UnavailableError for any other."""
    found = target_of(target)
    reason = environment.why_not_here(found)
    if reason:
        raise UnavailableError(f"target '{found.name}' can't be measured on this machine: {reason}")
    return found


def scheme_name(target: TargetOrName) -> str:
    """Return the name of the quantization scheme for a target; `auto` and names of schemes are returned as they are."""
    if target is None:
        return "auto"
    if target == "auto" or target in SCHEMES:
        return str(target)
    try:
        return scheme_for(target_of(target)).name
    except InputError as error:
        if isinstance(target, str) and not target.endswith(targets.SUFFIXES):
            raise InputError(f"{error}; schemes are auto, {', '.join(SCHEMES)}") from error
        raise
