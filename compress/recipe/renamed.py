"""Renamed keys of recipes: the old name keeps working for one version, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from runtimes.files import Json


class RenamedKeyWarning(DeprecationWarning):
    """A recipe uses the old name of a key."""


def rename(content: Json, renamed: Mapping[str, str], section: str) -> Json:
    """Return `content` with the old keys of `renamed` (old: new) replaced by the new ones.

    Warns with RenamedKeyWarning for each old key; raises ValueError if the old and the new key are both given.
    """
    result = dict(content)
    for old, new in renamed.items():
        if old not in result:
            continue
        if new in result:
            raise ValueError(f"has both '{new}' and its old name '{old}'; remove '{old}'")
        warnings.warn(
            f"{section}: '{old}' is now called '{new}'; the next version no longer accepts '{old}'",
            RenamedKeyWarning,
            stacklevel=2,
        )
        result[new] = result.pop(old)
    return result
