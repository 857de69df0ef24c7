"""List the keys of a recipe with their types, defaults and texts, from the JSON Schema."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from compress.recipe.json_schema import recipe_schema
from runtimes.errors import InputError
from runtimes.files import Json

BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
MAX_SEED = 2**31  # a bound that tells people nothing
TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
REQUIRED = "required"


@dataclass(frozen=True)
class Key:
    """One key of a section. default: as YAML, or "required"."""

    path: str
    type: str
    default: str
    text: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Section:
    """A mapping of keys, or the choice among several such sections. path: "" for the recipe itself."""

    path: str
    text: str
    keys: tuple[Key, ...]


def sections() -> list[Section]:
    """Return all sections, each before those inside it.

    A plug-in is a section by its name, as in `stages.prune`. The networks are listed below `model` only.
    """
    schema = recipe_schema()
    return list(_sections(schema, schema["$defs"], "", set()))


def find(name: str, known: list[Section]) -> list[Section | Key]:
    """Return the key and the section at a path, else all keys and sections with that end of their path.

    A path may hold indices of lists, as `--set` does: `stages.0.epochs`. Of a key that selects a plug-in, such as
    `model.arch`, the section is returned. Raises InputError with the nearest names if there is none.
    """
    entries: list[Section | Key] = [key for section in known for key in section.keys]
    entries += [section for section in known if section.path]
    matches = (
        [entry for entry in entries if entry.path == name]
        or [entry for entry in entries if entry.path.endswith(f".{name}")]
        or [entry for entry in entries if _with_indices(name).fullmatch(entry.path)]
        or [entry for entry in entries if isinstance(entry, Key) and _selects_plugin(name, entry)]
    )
    if matches:
        return matches
    paths = list(dict.fromkeys(entry.path for entry in entries))
    ends = list(dict.fromkeys(path.rpartition(".")[2] for path in paths))
    wanted = name.lower()
    near = (*difflib.get_close_matches(wanted, paths), *difflib.get_close_matches(wanted.rpartition(".")[2], ends))
    close = list(dict.fromkeys(near))[:3]
    advice = f"did you mean {' or '.join(close)}?" if close else "compress explain lists the sections"
    raise InputError(f"a recipe has no key '{name}'; {advice}")


def _with_indices(name: str) -> re.Pattern[str]:
    """Return a pattern of the paths that a name with indices stands for: each is a plug-in, or left out."""
    return re.compile(r"(\.\w+)?".join(map(re.escape, re.split(r"\.\d+(?=\.)", _without_index(name)))))


def _selects_plugin(name: str, key: Key) -> bool:
    """Return whether the name is that of the key that selects the plug-in of a section, as in `model.arch`."""
    parent, _, last = name.rpartition(".")
    return key.path == _without_index(parent) and f"section with {last}: " in key.type


def _without_index(name: str) -> str:
    """Return a name without an index at its end."""
    return re.sub(r"\.\d+$", "", name)


def _sections(node: Json, definitions: Json, path: str, entered: set[str]) -> Iterator[Section]:
    """Yield the section `node` and those below it; entered: kinds of plug-ins that are listed elsewhere."""
    properties = {name: content for name, content in node["properties"].items()
                  if not content.get("deprecated") and "const" not in content}  # fmt: skip
    required = node.get("required", ())
    yield Section(path, node["description"], tuple(
        Key(_joined(path, name), _type(content, definitions), _default(content, name in required),
            content["description"])
        for name, content in properties.items()
    ))  # fmt: skip
    for name, content in properties.items():
        for end, reference in _inner(content, entered):
            yield from _sections(definitions[reference], definitions, _joined(path, name, *end), entered)


def _inner(node: Json, entered: set[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the sections that a key holds: their path below the key, and their name in the definitions."""
    if "$ref" in node:
        yield (), _name(node)
    elif "discriminator" in node:
        tag = node["discriminator"]["propertyName"]
        if tag not in entered:
            entered.add(tag)
            for name, reference in node["discriminator"]["mapping"].items():
                yield (name,), _name({"$ref": reference})
    else:
        for part in (*node.get("anyOf", ()), *([node["items"]] if "items" in node else [])):
            yield from _inner(part, entered)


def _type(node: Json, definitions: Json) -> str:
    """Return what the key takes, in words."""
    if "$ref" in node:
        return _type(definitions[_name(node)], definitions)
    if "discriminator" in node:
        choices = ", ".join(node["discriminator"]["mapping"])
        return f"section with {node['discriminator']['propertyName']}: {choices}"
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(
            _type(part, definitions) for part in node["anyOf"] if part.get("type") != "null"
        ))  # fmt: skip
    if "enum" in node or "const" in node:
        *others, last = [_yaml(value) for value in node.get("enum", [node.get("const")])]
        return f"{', '.join(others)} or {last}" if others else last
    if node["type"] == "array":
        if "prefixItems" in node:
            return f"list of {len(node['prefixItems'])}: {_type(node['prefixItems'][0], definitions)}"
        return f"list: {_type(node['items'], definitions)}"
    if node["type"] == "object":
        values = node.get("additionalProperties")
        return f"names with values: {_type(values, definitions)}" if values else "section"
    if node.get("format") == "path":
        return "path"
    return ", ".join([TYPES[node["type"]], *_bounds(node)])


def _bounds(node: Json) -> list[str]:
    """Return the bounds of a number in words."""
    if "minimum" in node and "maximum" in node:
        return [f"{node['minimum']} to {node['maximum']}"]
    return [f"{words} {node[bound]:g}" for bound, words in BOUNDS.items() if node.get(bound, MAX_SEED) != MAX_SEED]


def _default(node: Json, required: bool) -> str:
    """Return the default as YAML, "" for a section, whose keys have their own defaults."""
    if required or "default" not in node:
        return REQUIRED if required else ""
    default = node["default"]
    items = default if isinstance(default, list) else [default]
    return "" if any(isinstance(item, dict) and item for item in items) else _yaml(default)


def _yaml(value: Any) -> str:  # Any: a value of JSON
    if value is None or value in ([], {}):
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _name(reference: Json) -> str:
    return str(reference["$ref"]).removeprefix("#/$defs/")


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
