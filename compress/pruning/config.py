"""Settings of pruning; loads without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from compress.recipe.section import Config
from compress.training.config import FitConfig
from runtimes.errors import InputError
from runtimes.target import Target

Importance = Literal["taylor", "l2", "l1", "bn_scale", "random"]
Share = Annotated[float, Field(gt=0, lt=1)]


class PruneConfig(Config):
    """Removal of channels; exactly one of `latency` and `macs` sets the budget.

    The budget and all limits refer to the network before this stage: they hold over all its rounds, and a second stage
    `prune` starts anew.

    latency: share of the latency to keep, measured on the target with the exported file.
    macs: share of the multiplications to keep, for targets that can't be measured on this machine.
    target: name of the target of the recipe to measure on; the first by default.
    precision: of the measured file.
    importance: criterion that ranks the channels, see `compress.pruning.importance.unit_scores`.
    step: channel counts are multiples of it.
    most_pruned: largest share of a group's channels to remove.
    limits: another such share for layers, by name or pattern, as in `{features.1*: 0.5}`.
    keep: names or patterns of layers that are not pruned.
    rounds: number of pruning rounds, each followed by `fine_tune`.
    fine_tune: training after each round; required for more than one round.
    """

    stage: Literal["prune"] = "prune"
    latency: Share | None = None
    macs: Share | None = None
    target: str | None = None
    precision: Literal["float32", "int8"] = "int8"
    importance: Importance = "taylor"
    step: Annotated[int, Field(ge=1, le=1024)] = 8
    most_pruned: Share = 0.8
    limits: dict[str, Share] = Field(default_factory=dict)
    keep: tuple[str, ...] = ()
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    fine_tune: FitConfig | None = None

    @property
    def budget(self) -> float:
        """Return the share of the baseline's latency or multiplications to keep."""
        budget = self.latency or self.macs
        assert budget is not None  # checked on creation
        return budget

    @model_validator(mode="after")
    def _require_budget_and_fine_tune(self) -> PruneConfig:
        if (self.latency is None) == (self.macs is None):
            raise ValueError("give either latency or macs, the share to keep")
        if self.rounds > 1 and self.fine_tune is None:
            raise ValueError(f"rounds: {self.rounds} rounds need the section fine_tune")
        return self

    def measures_on(self, targets: tuple[Target, ...]) -> Target | None:
        """See `compress.recipe.section.Config.measures_on`."""
        if self.latency is None:
            return None
        candidates = [target for target in targets if self.target in (None, target.name)]
        if not candidates:
            names = ", ".join(target.name for target in targets)
            raise InputError(f"target: there is no target '{self.target}'; choose from {names}")
        return candidates[0]
