"""Configuration of a sweep: the recipe, the settings to vary, the search method and the objectives."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from compress.recipe.section import Config
from compress.verdict.metrics import Metric

Objective = Literal["top1", "balanced_accuracy", "macro_f1", "latency_ms_p50", "speedup_p50", "size_bytes"]
DIRECTIONS: dict[Objective, Literal["maximize", "minimize"]] = {
    "top1": "maximize", "balanced_accuracy": "maximize", "macro_f1": "maximize", "latency_ms_p50": "minimize",
    "speedup_p50": "maximize", "size_bytes": "minimize",
}  # fmt: skip
MAX_TRIALS = 10_000


class Range(Config):
    """Numbers to search; integers if both ends are.

    low: smallest number.
    high: largest number.
    log: sample uniformly in the logarithm.
    """

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be less than high, and above 0 if log is true")
        return self


class Sweep(Config):
    """Content of a sweep file.

    recipe: path relative to the sweep file, or the name of a shipped recipe.
    vary: for each dotted path in the recipe (as for `--set`), a list of values, or a range for a search.
    method: `grid` runs all combinations; `random` and `tpe` run `trials` of them, and `tpe` chooses each by the results
        so far (Bergstra et al., 2011).
    trials: number of trials of `random` and `tpe`.
    objectives: figures of the target's last artifact; top1, balanced_accuracy and macro_f1 are measured on val. The
        default is the metric of the recipe's gate (top1 without), and latency.
    target: name of the target that is optimized; the recipe's first by default.
    seed: of the search.
    """

    recipe: str
    # Any: a value is whatever YAML holds; the recipe validates it.
    vary: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)] | Range], Field(min_length=1)]
    method: Literal["grid", "random", "tpe"] = "grid"
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = ("top1", "latency_ms_p50")
    target: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _method_fits(self) -> Sweep:
        ranges = [key for key, values in self.vary.items() if isinstance(values, Range)]
        if self.method == "grid" and ranges:
            raise ValueError(f"vary.{ranges[0]}: a grid needs a list of values; a range needs method tpe or random")
        if self.method == "grid" and self.trials is not None:
            raise ValueError("trials: a grid runs all combinations; remove trials, or set method to tpe or random")
        if self.method != "grid" and self.trials is None:
            raise ValueError(f"trials: is required for the method {self.method}")
        if self.method == "grid" and self.count() > MAX_TRIALS:
            raise ValueError(f"vary: {self.count()} combinations; at most {MAX_TRIALS}")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: must not contain an objective twice")
        return self

    @property
    def metric(self) -> Metric:
        """The first objective that is a metric of accuracy, top1 if there is none."""
        return next((name for name in get_args(Metric) if name in self.objectives), "top1")

    def count(self) -> int:
        """Return the number of trials of the whole sweep."""
        return self.trials or math.prod(len(values) for values in self.vary.values() if isinstance(values, list))
