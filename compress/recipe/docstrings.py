"""Read the descriptions of keys from docstrings: lines `key: text` or `key, other: text`, up to the next such line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection

KEYS_LINE = re.compile(r"(?P<keys>[a-z]\w*(?:, [a-z]\w*)*): (?P<text>.*)")


def summary(section: type) -> str:
    """Return the docstring of a section up to its first key, as one paragraph."""
    lines = _lines(section)
    names = _fields(section)
    first = next((index for index, line in enumerate(lines) if _keys(line, names)), len(lines))
    return _text(lines[:first])


def descriptions(section: type) -> dict[str, str]:
    """Return the text of each key that the docstring of the section, or of one of its bases, describes."""
    names = _fields(section)
    texts: dict[str, str] = {}
    for base in reversed(section.__mro__):
        lines = _lines(base)
        starts = [index for index, line in enumerate(lines) if _keys(line, names)]
        for start in starts:
            end = next((index for index in range(start + 1, len(lines)) if index in starts or not lines[index]), None)
            text = _text([lines[start].partition(": ")[2], *lines[start + 1 : end]])
            texts |= dict.fromkeys(_keys(lines[start], names), text)
    return texts


def _lines(section: type) -> list[str]:
    return inspect.cleandoc(section.__dict__.get("__doc__") or "").splitlines()


def _fields(section: type) -> Collection[str]:
    """Return the names of all annotated attributes, those of the bases included."""
    return {name for base in section.__mro__ for name in inspect.get_annotations(base)}


def _keys(line: str, names: Collection[str]) -> list[str]:
    """Return the keys that the line begins to describe; none if a word in front of the colon is no key."""
    match = KEYS_LINE.fullmatch(line)
    keys = match["keys"].split(", ") if match else []
    return keys if set(keys) <= set(names) else []


def _text(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
