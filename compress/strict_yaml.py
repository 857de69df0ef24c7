"""YAML without what hides mistakes or does harm: no tags, no repeated keys, no aliases, no files above 1 MiB."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from runtimes.errors import InputError

MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """Refuses aliases, which can explode, and keys that stand twice, of which YAML would keep the last."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[Any, Any]:
    """Return the mapping that a YAML file holds; raises InputError with the line of what is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than 1 MiB, not a recipe")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; see: compress list recipes") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as UTF-8 text ({error})") from error
    content = _parse(text, str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping with data, model, stages, …; see recipes/ for examples")
    return content


def override(content: dict[Any, Any], assignment: str) -> None:
    """Set one `dotted.key=value` in place, the value read as YAML; mappings are made on the way, list items are not."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise InputError(f"--set {assignment}: must be key=value, for example --set stages.0.epochs=3")
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        if isinstance(place, dict) and place.get(parent) is None:
            place[parent] = {}
        place = place[_index(place, parent, assignment)]
    place[_index(place, last, assignment)] = _parse(text, f"--set {assignment}")


def _index(place: Any, part: str, assignment: str) -> Any:
    if isinstance(place, dict):
        return part
    if isinstance(place, list):
        if re.fullmatch(r"\d{1,6}", part) and int(part) < len(place):
            return int(part)
        raise InputError(f"--set {assignment}: '{part}' must be an index from 0 to {len(place) - 1}")
    raise InputError(f"--set {assignment}: there is no '{part}' inside the value {place!r}")


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{where}: not valid YAML{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
