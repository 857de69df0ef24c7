"""Suggest the nearest known name for an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def near(wrong: str, choices: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the closest choice, or all choices."""
    close = difflib.get_close_matches(wrong, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; choose from {', '.join(choices)}"
