"""Remove channels until the measured latency, or the number of multiplications, is a given share of the baseline's."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from compress.process import distributed
from compress.pruning.config import PruneConfig

if TYPE_CHECKING:
    from torch import nn

    from compress.pruning.plans import Price
    from compress.training.context import Context

CUTS = True  # later stages and reports compare with the network before this stage


class Config(PruneConfig):
    """See `compress.pruning.config.PruneConfig`."""

    stage: Literal["prune"] = "prune"


def run(model: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the pruned network; write the plan of each round to `plan-N.json` in the stage's folder."""
    # Imported here because reading a recipe imports every stage for its Config, and these import torch.
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
    from compress.pruning import plans  # see run

    path = context.folder / f"plan-{number}.json"
    if not path.exists():
        assert price is not None
        plans.save(path, plans.make_plan(model, context, config, price, config.budget ** (number / config.rounds)))
    content: dict[str, Any] = json.loads(path.read_text())
    return content
