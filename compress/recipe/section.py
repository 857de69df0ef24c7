"""Base class of every section of a recipe: frozen, bounded, no unknown keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, ClassVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from compress.recipe.renamed import rename
from runtimes.files import Json, JsonValue
from runtimes.target import Target


class Config(BaseModel):
    """Base of every section and plug-in Config.

    Instances are immutable. Unknown keys, NaN, infinity and booleans in place of numbers are errors.
    RENAMED: old keys and their new names, for example {"engine": "method"}. An old key works with a warning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    RENAMED: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, content: JsonValue) -> JsonValue:
        """Rename old keys and let booleans fail where the type is a number."""
        if not isinstance(content, dict):
            return content
        content = rename(content, cls.RENAMED, _section_name(cls))
        hints = {name: field.annotation for name, field in cls.model_fields.items()}
        return {key: reject_booleans(value, hints.get(key)) for key, value in content.items()}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        """Return the JSON Schema with the old keys as deprecated properties."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        for old, new in cls.RENAMED.items():
            schema["properties"][old] = {**schema["properties"][new], "deprecated": True}
            if new in schema.get("required", ()):
                schema["required"].remove(new)
        return reference

    def measures_on(self, targets: tuple[Target, ...]) -> Target | None:
        """Return the target of the recipe that this section measures on, None for none.

        Raises InputError if the section names a target that the recipe does not have.
        """
        return None

    def resolved(self) -> Config:
        """Return the settings with every `auto` that decides results replaced by its value on this machine."""
        return self


class NetworkConfig(Config):
    """Base of the section of every network.

    weights: a file, `package:NAME`, `hf:REPO` (a repository of the Hugging Face hub, or REPO/FILE), or a name of
        weights that torchvision publishes; null for random ones.
    weights_key: dotted path of the network inside a file that holds several, e.g. `state_dict_ema`.
    """

    weights: str | None = None
    weights_key: str | None = None

    @model_validator(mode="after")
    def _require_weights(self) -> NetworkConfig:
        if self.weights_key is not None and self.weights is None:
            raise ValueError("weights_key: needs weights, the file to look in")
        return self


def other_name(root: type[Config], path: Sequence[str]) -> str | None:
    """Return the new name of an old key, or the old name of a new one; None if the key was not renamed.

    path: names of the sections from `root` to the key, and indices of list items.
    """
    *parents, key = path
    sections = [root]
    for name in parents:
        annotations = [section.model_fields[name].annotation for section in sections if name in section.model_fields]
        if not name.isdecimal():
            sections = [kind for annotation in annotations for kind in _types(annotation) if _is_section(kind)]
    names = [pair for section in sections for pair in section.RENAMED.items()]
    return next((new if key == old else old for old, new in names if key in (old, new)), None)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)


def _section_name(section: type[Config]) -> str:
    """Return the name that warnings use: of the class, or of the plug-in's module."""
    return section.__module__.rpartition(".")[2] if section.__name__ == "Config" else section.__name__.lower()


def reject_booleans(value: JsonValue, annotation: Any) -> JsonValue:  # Any: a type annotation
    """Return `value` with True and False as text where `annotation` is a number type.

    pydantic would convert them to 1 and 0; as text they fail the validation. Lists, mappings and the fields of
    dataclasses are included; a nested `Config` does this itself.
    """
    types = _types(annotation)
    if isinstance(value, bool):
        takes_numbers = float in types or any(kind is int or type(kind) is int for kind in types)  # or a Literal's
        return str(value).lower() if bool not in types and takes_numbers else value
    if isinstance(value, list):
        return [reject_booleans(item, annotation) for item in value]
    if isinstance(value, dict):
        classes = [kind for kind in types if isinstance(kind, type) and is_dataclass(kind)]
        hints = {name: hint for kind in classes for name, hint in get_type_hints(kind).items()}
        return {key: reject_booleans(item, hints.get(key) if classes else annotation) for key, item in value.items()}
    return value


def _types(annotation: Any) -> list[Any]:
    """Return the annotation and all types inside it."""
    return [annotation, *(inner for argument in get_args(annotation) for inner in _types(argument))]
