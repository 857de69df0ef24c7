"""What a sweep tries of a recipe."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from compress.recipe.section import Config

Objective = Literal["top1", "latency_ms_p50", "speedup_p50", "size_bytes"]
DIRECTIONS: dict[Objective, Literal["maximize", "minimize"]] = {
    "top1": "maximize", "latency_ms_p50": "minimize", "speedup_p50": "maximize", "size_bytes": "minimize",
}  # fmt: skip
MOST_TRIALS = 10_000


class Range(Config):
    """Numbers from low to high, whole ones where both are; log: spread over orders of magnitude."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _rises(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be less than high, and above 0 where log is true")
        return self


class Sweep(Config):
    """What is tried of a recipe.

    recipe: a path, from the sweep's folder. vary: by dotted path in the recipe, as `--set` takes it, the values to try,
    or a range for a search. method: `grid` tries all; `tpe` learns from its `trials` where to look (Bergstra et al.,
    2011), `random` does not.
    objectives: of what ships to the target, top1 on val. target: the recipe's first unless named.
    """

    recipe: str
    vary: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)] | Range], Field(min_length=1)]
    method: Literal["grid", "random", "tpe"] = "grid"
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("top1", "latency_ms_p50")
    target: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _fits(self) -> Sweep:
        ranges = [key for key, values in self.vary.items() if isinstance(values, Range)]
        if self.method == "grid" and ranges:
            raise ValueError(f"vary.{ranges[0]}: a grid needs a list of values; a range is for tpe or random")
        if self.method == "grid" and self.trials is not None:
            raise ValueError("trials: a grid tries all; leave it out, or choose another method")
        if self.method != "grid" and self.trials is None:
            raise ValueError(f"trials: {self.method} needs to know how many to try")
        if self.method == "grid" and self.count() > MOST_TRIALS:
            raise ValueError(f"vary: {self.count()} combinations; at most {MOST_TRIALS}")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: each may stand once")
        return self

    def count(self) -> int:
        """Return how many trials there are to be."""
        return self.trials or math.prod(len(values) for values in self.vary.values() if isinstance(values, list))
