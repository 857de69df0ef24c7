"""Cut channels until a target's measured milliseconds, or the multiplications, fall to a share of what they were."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from compress.recipe.section import Config as Section
from compress.training.config import FitConfig
from runtimes.errors import InputError
from runtimes.target import Target

if TYPE_CHECKING:
    from torch import nn

    from compress.pruning.plans import Price
    from compress.training.context import Context

CUTS = True  # what comes behind is compared with the network before
Share = Annotated[float, Field(gt=0, lt=1)]


class Config(Section):
    """One of `latency` and `macs` says how much is to stay.

    latency: share of the milliseconds on the target, measured on the artifact that ships there. macs: share of the
    multiplications, for targets that are not at hand. target: its name in the recipe, the first by default. precision:
    of what ships. importance: what a channel is worth, see `compress.pruning.importance`. step: widths are multiples of
    it. most_pruned: share of a group that may go. limits: another share for layers, by name or pattern. keep: names or
    patterns of layers that stay as they are. rounds: how often to cut, with `fine_tune` behind each round.
    """

    stage: Literal["prune"] = "prune"
    latency: Share | None = None
    macs: Share | None = None
    target: str | None = None
    precision: Literal["float32", "int8"] = "int8"
    importance: Literal["taylor", "l2", "l1", "bn_scale", "random"] = "taylor"
    step: Annotated[int, Field(ge=1, le=1024)] = 8
    most_pruned: Annotated[float, Field(gt=0, lt=1)] = 0.8
    limits: dict[str, Share] = Field(default_factory=dict)
    keep: tuple[str, ...] = ()
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    fine_tune: FitConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if (self.latency is None) == (self.macs is None):
            raise ValueError("give either latency or macs, the share that is to stay")
        if self.rounds > 1 and self.fine_tune is None:
            raise ValueError("rounds: more than one need the section fine_tune")
        return self

    def measures_on(self, targets: tuple[Target, ...]) -> Target | None:
        """See `compress.recipe.section.Config.measures_on`."""
        if self.latency is None:
            return None
        found = [target for target in targets if self.target in (None, target.name)]
        if not found:
            names = ", ".join(target.name for target in targets)
            raise InputError(f"target: there is no target '{self.target}'; there are {names}")
        return found[0]


def run(model: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the narrower network; leaves the plan of each round in `plan-N.json`."""
    from dataclasses import replace

    from compress.process import distributed
    from compress.pruning import plans
    from compress.training.teaching import train

    price = plans.pricing(model, context, config) if distributed.is_first() else None  # by one clock
    for number in range(1, config.rounds + 1):
        plan = plans.from_json(distributed.from_first(partial(_planned, model, context, config, price, number)))
        for line in plans.lines(plan):
            context.console.say(line)
        model = plans.apply(model, context, plan)
        if config.fine_tune is not None:
            folder = context.folder / f"round-{number}"
            folder.mkdir(exist_ok=True)
            model = train(model, replace(context, folder=folder), config.fine_tune)
    return model


def _planned(model: nn.Module, context: Context, config: Config, price: Price | None, number: int) -> dict[str, Any]:
    """Return a round's plan as JSON, made now or before."""
    from compress.pruning import plans

    path = context.folder / f"plan-{number}.json"
    if not path.exists():
        asked = config.latency or config.macs
        assert asked is not None
        assert price is not None
        plans.save(path, plans.make_plan(model, context, config, price, asked ** (number / config.rounds)))
    content: dict[str, Any] = json.loads(path.read_text())
    return content
