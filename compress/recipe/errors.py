"""Format pydantic's errors for users: the path in the file, what is wrong, and what would be valid."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from compress.recipe import plugins
from compress.recipe.names import near
from compress.recipe.plugins import TAG
from compress.recipe.strict_yaml import YamlValue
from runtimes.errors import InputError

Location = tuple[int | str, ...]
_Section = TypeVar("_Section")
MAX_LINES = 20


def validated(kind: type[_Section], content: YamlValue) -> _Section:
    """Return the section with that content; raises InputError with one line per problem."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise InputError("\n".join(lines(error, kind, content))) from None


def lines(error: ValidationError, root: type, content: YamlValue) -> list[str]:
    """Return one line per problem of `content`, validated as a `root`; beyond 20, a last line with the number left."""
    all_details = error.errors(include_url=False)
    parents = {details["loc"][:depth] for details in all_details for depth in range(1, len(details["loc"]))}
    messages_by_path: dict[str, list[str]] = {}
    for details in all_details:
        if details["type"] == "too_short" and details["loc"] in parents:
            continue  # pydantic drops invalid items; their own errors say why
        for line in _message(details, root, content).splitlines():
            path, _, message = line.rpartition("\0")
            messages_by_path.setdefault(path, []).append(message)
    between_sections = messages_by_path.pop("", [])  # these messages begin with a path already
    problems = [f"{path}: {_joined(messages)}" for path, messages in messages_by_path.items()] + between_sections
    remaining = len(problems) - MAX_LINES
    return [*problems[:MAX_LINES], *([f"and {remaining} more"] if remaining > 0 else [])]


def _joined(messages: list[str]) -> str:
    """Join the messages about one value: with "or" for the members of a union, else with a semicolon."""
    *others, last = messages
    if others and all(message.startswith("must be ") for message in messages):
        return " or ".join([*(message.partition(", not ")[0] for message in others), last.removeprefix("must be ")])
    return "; ".join(messages)


YAML_WORDING = {
    "tuple_type": "must be a list",
    "model_type": "must be a mapping, {key: value, …}",
    "model_attributes_type": "must be a mapping, {key: value, …}",
    "dataclass_type": "must be a mapping, {key: value, …}",
    "dict_type": "must be a mapping, {key: value, …}",
    "too_short": "must have at least one item",
    "string_pattern_mismatch": "must consist of letters, digits, '-', '_' and '.', and begin with a letter or digit",
}


def _message(details: ErrorDetails, root: type, content: YamlValue) -> str:
    """Return lines of `path`, NUL and what is wrong."""
    kind, context, location = details["type"], details.get("ctx", {}), details["loc"]
    path, keys = _follow(location, root)
    where, tag = ".".join(path), context.get("discriminator", "").strip("'")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        key = str(location[-1])
        return f"{'.'.join([*path, key])}\0unknown key{near(key, keys)}"
    if kind == "union_tag_invalid":
        choices = {*re.findall(r"'([^']*)'", context["expected_tags"]), *plugins.registered(tag)}
        return f"{where}.{tag}\0there is no '{context['tag']}'{near(context['tag'], sorted(choices))}"
    if kind == "union_tag_not_found":
        return f"{where}\0needs the key '{tag}'"
    if kind in ("missing", "missing_argument"):
        return f"{where}\0is required"
    message = re.sub(r"^(Value error, |Assertion failed, )", "", details["msg"])
    message = YAML_WORDING.get(kind, re.sub(r"^Input should be", "must be", message))
    value = _value(content, path)
    if kind == "value_error":
        return "\n".join(f"{where}\0{line}" for line in message.splitlines())
    if isinstance(value, (str, int, float, bool)):
        message += f", not {json.dumps(value)}"
    return f"{where}\0{message}"


def _follow(location: Location, root: type) -> tuple[list[str], list[str]]:
    """Return the path in the file, without pydantic's union tags, and the valid keys of the section at its end."""
    path: list[str] = []
    candidates: list[type] = [root]
    is_key = False  # the next part is a key of a mapping, for example the name of a module
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
        elif isinstance(part, str) and plugins.configs(part):
            candidates = list(plugins.configs(part))
    return path, sorted({name for candidate in candidates for name in _fields(candidate)})


def _is_mapping(annotation: Any) -> bool:
    """Return whether the type is a dict, possibly with `Annotated` bounds or in a union."""
    origin = get_origin(annotation)
    inner = get_args(annotation)[:1] if origin is Annotated else get_args(annotation)
    return origin is dict or (origin in (Annotated, Union, UnionType) and any(_is_mapping(part) for part in inner))


def _sections(annotation: Any) -> list[type]:
    """Return the models and dataclasses inside a type annotation."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _fields(section: type) -> Mapping[str, Any]:
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    assert dataclasses.is_dataclass(section)
    hints = get_type_hints(section)  # includes class variables
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


def _tag(section: type) -> Any:
    """Return the plug-in name if `section` is the Config of a plug-in, else None."""
    if not issubclass(section, BaseModel):
        return None
    return next((section.model_fields[key].default for key in TAG.values() if key in section.model_fields), None)


def _value(content: YamlValue, path: list[str]) -> YamlValue:
    for part in path:
        if isinstance(content, dict) and part in content:
            content = content[part]
        elif isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        else:
            return None
    return content
