"""Read YAML strictly: no tags, aliases or duplicate keys, and at most 1 MiB."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from runtimes.errors import InputError

Yaml: TypeAlias = dict[Any, Any]  # a YAML mapping before it is validated
YamlValue: TypeAlias = Any  # any value that YAML can hold

MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """Refuses aliases (which can grow exponentially), tags, keys that are not scalars, and duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases (*name) are not allowed", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags (!name) are not allowed", event)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, YamlValue]:
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key must be plain text", key)
            if key.value in keys:
                raise _refusal(f"duplicate key '{key.value}'", key)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def _refusal(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, place.start_mark)


def read(path: Path, kind: Literal["recipes", "sweeps", "targets"] = "recipes") -> Yaml:
    """Return the mapping in a YAML file; raises InputError with the line of the first problem.

    kind: what the file is one of; a message says how to list those.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)  # a device such as /dev/zero has no end
        if len(data) > MAX_BYTES:
            raise InputError(f"{path}: larger than 1 MiB; see: compress list {kind}")
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; see: compress list {kind}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not a file; see: compress list {kind}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as UTF-8 text ({error})") from error
    content = _parse(text, str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of keys to values; see: compress list {kind}")
    return content


def override(content: Yaml, assignment: str, other_name: str | None = None) -> YamlValue:
    """Set `dotted.key=value` in place, with the value as YAML; adds missing mappings, not missing list items.

    Return the mapping or list that holds the key.

    other_name: old or new name of the same key, whose value is removed.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise InputError(f"--set {assignment}: must be key=value, for example --set stages.0.epochs=3")
    *parents, last = key.split(".")
    place: YamlValue = content
    for parent, child in zip(parents, [*parents, last][1:], strict=True):
        if isinstance(place, dict) and place.get(parent) is None:
            if child.isdecimal():
                raise InputError(f"--set {assignment}: there is no list '{parent}' with an item {child}")
            place[parent] = {}
        place = place[_index(place, parent, assignment)]
    place[_index(place, last, assignment)] = _parse(text, f"--set {assignment}")
    if other_name is not None:
        place.pop(other_name, None)
    return place


def _index(place: YamlValue, part: str, assignment: str) -> str | int:
    if isinstance(place, dict):
        return part
    if isinstance(place, list):
        if re.fullmatch(r"\d{1,6}", part) and int(part) < len(place):
            return int(part)
        items = f"an index from 0 to {len(place) - 1}" if place else "omitted, because the list is empty"
        raise InputError(f"--set {assignment}: '{part}' must be {items}")
    raise InputError(f"--set {assignment}: the value {place!r} has no key '{part}'")


def _parse(text: str, where: str) -> YamlValue:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (_Loader is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{where}: not valid YAML{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
