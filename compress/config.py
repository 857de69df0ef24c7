"""What every section of a recipe is: frozen, bounded, and without unknown keys."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from runtimes.target import Target


class Config(BaseModel):
    """Base of every plug-in's Config: immutable, unknown keys are errors, no NaN or infinity, no `yes` for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, content: Any) -> Any:
        """Make texts of true and false where a number is wanted, which pydantic would take for 1 and 0."""
        if not isinstance(content, dict):
            return content
        return {key: str(value).lower() if isinstance(value, bool) and _wants_number(cls, key) else value
                for key, value in content.items()}  # fmt: skip

    def measures_on(self, targets: tuple[Target, ...]) -> Target | None:
        """Return which of the recipe's targets has to be at hand, None for any; raises InputError if it isn't there."""
        return None


def _wants_number(model: type[BaseModel], name: str) -> bool:
    types = _types(model.model_fields[name].annotation) if name in model.model_fields else []
    return bool not in types and (int in types or float in types)


def _types(annotation: Any) -> list[Any]:
    """Return all types that an annotation names."""
    return [annotation, *(inner for argument in get_args(annotation) for inner in _types(argument))]
