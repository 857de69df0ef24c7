"""Folders of a user's cache, shared by all runs."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """Return the folder `name` in the user's cache: $XDG_CACHE_HOME/compress or ~/.cache/compress."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compress" / name
