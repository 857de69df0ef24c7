"""What every section of a recipe is: frozen, bounded, and without unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from runtimes.target import Target


class Config(BaseModel):
    """Base of every plug-in's Config: immutable, unknown keys are errors, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def measures_on(self, targets: tuple[Target, ...]) -> Target | None:
        """Return which of the recipe's targets has to be at hand, None for any; raises InputError if it isn't there."""
        return None
