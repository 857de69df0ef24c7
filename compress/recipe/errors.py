"""From pydantic's errors to lines that a user can act on: the path in the file, what is wrong, what would work."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from compress.recipe.plugins import TAG

Location = tuple[int | str, ...]
MOST_LINES = 20


def lines(error: ValidationError, root: type, content: Any) -> list[str]:
    """Return one line per problem that validating `content` as a `root` found, and one that counts those beyond 20."""
    found = error.errors(include_url=False)
    broken_inside = {details["loc"][:depth] for details in found for depth in range(1, len(details["loc"]))}
    told: dict[str, list[str]] = {}
    for details in found:
        if details["type"] == "too_short" and details["loc"] in broken_inside:
            continue  # its items are what is wrong
        for line in _message(details, root, content).splitlines():
            where, _, message = line.rpartition("\0")
            told.setdefault(where, []).append(message)
    misfits = told.pop("", [])  # between sections; each names its own path
    problems = [*(f"{where}: {_joined(messages)}" for where, messages in told.items()), *misfits]
    beyond = len(problems) - MOST_LINES
    return [*problems[:MOST_LINES], *([f"and {beyond} more like these"] if beyond > 0 else [])]


def _joined(messages: list[str]) -> str:
    """Join what is wrong with one value: the choices of a union, or several faults."""
    *others, last = messages
    if others and all(message.startswith("must be ") for message in messages):
        return " or ".join([*(message.partition(", not ")[0] for message in others), last.removeprefix("must be ")])
    return "; ".join(messages)


IN_WORDS_OF_YAML = {
    "tuple_type": "must be a list",
    "model_type": "must be a mapping, {key: value, …}",
    "model_attributes_type": "must be a mapping, {key: value, …}",
    "dataclass_type": "must be a mapping, {key: value, …}",
    "dict_type": "must be a mapping, {key: value, …}",
    "too_short": "must have at least one item",
    "string_pattern_mismatch": "must be of letters, digits, '-', '_' and '.', and begin with a letter or digit",
}


def _message(details: ErrorDetails, root: type, content: Any) -> str:
    """Return `path NUL what is wrong`."""
    kind, context, location = details["type"], details.get("ctx", {}), details["loc"]
    path, keys = _follow(location, root)
    where, tag = ".".join(path), context.get("discriminator", "").strip("'")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        key = str(location[-1])
        return f"{'.'.join([*path, key])}\0unknown key{near(key, keys)}"
    if kind == "union_tag_invalid":
        choices = re.findall(r"'([^']*)'", context["expected_tags"])
        return f"{where}.{tag}\0there is no '{context['tag']}'{near(context['tag'], choices)}"
    if kind == "union_tag_not_found":
        return f"{where}\0must name its {tag}"
    if kind in ("missing", "missing_argument"):
        return f"{where}\0is required"
    message = re.sub(r"^(Value error, |Assertion failed, )", "", details["msg"])
    message = IN_WORDS_OF_YAML.get(kind, re.sub(r"^Input should be", "must be", message))
    value = _value(content, path)
    if kind == "value_error":
        return "\n".join(f"{where}\0{line}" for line in message.splitlines())
    if isinstance(value, (str, int, float, bool)):
        message += f", not {json.dumps(value)}"
    return f"{where}\0{message}"


def _follow(location: Location, root: type) -> tuple[list[str], list[str]]:
    """Return the path as it stands in the file, without the tags of unions, and the keys of the section at its end."""
    path: list[str] = []
    candidates: list[type] = [root]
    is_key = False  # of a mapping, as a module's name is
    for part in location:
        known = {name: hint for candidate in candidates for name, hint in _fields(candidate).items()}
        tagged = [candidate for candidate in candidates if _tag(candidate) == part]
        if isinstance(part, int) or is_key:
            path.append(str(part))
            is_key = False
        elif tagged and len(candidates) > 1:
            candidates = tagged
        elif part in known:
            path.append(part)
            candidates = _sections(known[part]) or candidates
            is_key = _is_mapping(known[part])
    return path, sorted({name for candidate in candidates for name in _fields(candidate)})


def _is_mapping(annotation: Any) -> bool:
    """Return whether a type is a mapping, or one with bounds."""
    origin = get_origin(annotation)
    return origin is dict or (origin is Annotated and _is_mapping(get_args(annotation)[0]))


def _sections(annotation: Any) -> list[type]:
    """Return the models and dataclasses that a type annotation names."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _fields(section: type) -> Mapping[str, Any]:
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    return get_type_hints(section)


def _tag(section: type) -> Any:
    """Return the name of the plug-in whose Config this is, None for other sections."""
    if not issubclass(section, BaseModel):
        return None
    return next((section.model_fields[key].default for key in TAG.values() if key in section.model_fields), None)


def _value(content: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(content, dict) and part in content:
            content = content[part]
        elif isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        else:
            return None
    return content


def near(wrong: str, choices: list[str]) -> str:
    """Return the end of a message about an unknown name: the one that was meant, or all that there are."""
    close = difflib.get_close_matches(wrong, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(choices)}"
