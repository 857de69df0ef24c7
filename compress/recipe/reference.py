"""The page recipes/KEYS.md: all keys of a recipe. `make reference` writes it."""

from __future__ import annotations

import sys

from compress.recipe.keys import Key, Section, sections

MIN_SHARED = 10  # a section with so many keys of an earlier one refers to it and lists the others only
START = """# Keys of a recipe

All keys, written by `make reference` from the docstrings of the code. `compress explain KEY` prints the same texts, and
`compress schema` puts them into the JSON Schema for editors. [README.md](README.md) explains how recipes work.
"""


def markdown() -> str:
    """Return the page."""
    listed: list[Section] = []
    parts = [START]
    for section in sorted(sections(), key=lambda section: _order(section.path)):
        parts.append(_part(section, listed))
        listed.append(section)
    return "\n".join(parts)


def _order(path: str) -> tuple[int, bool]:
    """Return the place of a section: in the order of the recipe, and `stages.train` first, to which others refer."""
    order = {name: index for index, name in enumerate(key.name for key in sections()[0].keys)}
    return order.get(path.partition(".")[0], -1), not path.startswith("stages.train")


def _part(section: Section, listed: list[Section]) -> str:
    """Return heading, text and table; keys that an earlier section has, too, are replaced by a link to it."""
    base = next((other for other in listed if _shares(section, other)), None)
    keys = [key for key in section.keys if base is None or _row(key) not in map(_row, base.keys)]
    lines = [f"## {section.path or 'Top level'}", "", section.text, ""]
    if base is not None:
        others = ". These differ" if keys else ""
        lines += [f"The keys are those of [{base.path}](#{base.path.replace('.', '')}){others}.", ""]
    if keys:
        lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |", *map(_row, keys), ""]
    return "\n".join(lines)


def _shares(section: Section, other: Section) -> bool:
    """Return whether the section has all keys of another one, and most of them equal."""
    rows, others = set(map(_row, section.keys)), set(map(_row, other.keys))
    names = {key.name for key in section.keys} >= {key.name for key in other.keys}
    return rows == others or (names and len(rows & others) >= MIN_SHARED)


def _row(key: Key) -> str:
    default = f"`{key.default}`" if key.default not in ("", "none", "required") else key.default
    return f"| `{key.name}` | {key.type} | {default} | {key.text} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
