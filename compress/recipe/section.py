"""What every section of a recipe is: frozen, bounded, and without unknown keys."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, model_validator

from runtimes.target import Target


class Config(BaseModel):
    """Base of every plug-in's Config: immutable, unknown keys are errors, no NaN or infinity, no `yes` for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        hints = {name: field.annotation for name, field in cls.model_fields.items()}
        return {key: no_truth_for_numbers(value, hints.get(key)) for key, value in content.items()}

    def measures_on(self, targets: tuple[Target, ...]) -> Target | None:
        """Return which of the recipe's targets has to be at hand, None for any; raises InputError if it isn't there."""
        return None


def no_truth_for_numbers(value: Any, annotation: Any) -> Any:
    """Make texts of true and false where a type wants a number, which pydantic would take for 1 and 0.

    In lists, in mappings and in the fields of data classes, too; a `Config` sees to its own.
    """
    types = _types(annotation)
    if isinstance(value, bool):
        return str(value).lower() if bool not in types and (int in types or float in types) else value
    if isinstance(value, list):
        return [no_truth_for_numbers(one, annotation) for one in value]
    if isinstance(value, dict):
        classes = [one for one in types if isinstance(one, type) and is_dataclass(one)]
        hints = {name: hint for one in classes for name, hint in get_type_hints(one).items()}
        return {key: no_truth_for_numbers(one, hints.get(key) if classes else annotation) for key, one in value.items()}
    return value


def _types(annotation: Any) -> list[Any]:
    """Return all types that an annotation names."""
    return [annotation, *(inner for argument in get_args(annotation) for inner in _types(argument))]
