"""Remove channels until the measured latency, or the number of multiplications, is a given share of the baseline's."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from compress.process import distributed
from compress.pruning.config import PruneConfig
from compress.pruning.plans import PruningPlan

if TYPE_CHECKING:
    from torch import nn

    from compress.pruning.costs import CostModel
    from compress.training.context import Context

PRUNES = True  # later stages and reports compare with the network before this stage
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "scipy")  # besides those that training needs


class Config(PruneConfig):  # noqa: D101  its docstring is that of the settings, for the schema of recipes
    __doc__ = PruneConfig.__doc__


def run(model: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the pruned network; write the plan of each round to `plan-N.json` in the stage's folder."""
    # Imported here because reading a recipe imports every stage for its Config, and these import torch.
    from compress.pruning.costs import build_cost_model
    from compress.pruning.planning import apply_plan
    from compress.pruning.tables import plan_lines
    from compress.training.teaching import train

    cost_model = build_cost_model(model, context, config) if distributed.is_first() else None  # measured by one process
    for number in range(1, config.rounds + 1):
        plan_json = distributed.from_first(partial(_plan_json, model, context, config, cost_model, number))
        plan = PruningPlan.from_json(plan_json)
        for line in plan_lines(plan):
            context.console.say(line)
        model = apply_plan(model, context, plan)
        if config.fine_tune is not None:
            folder = context.folder / f"round-{number}"
            folder.mkdir(exist_ok=True)
            model = train(model, replace(context, folder=folder), config.fine_tune)
    return model


def _plan_json(
    model: nn.Module, context: Context, config: Config, cost_model: CostModel | None, number: int
) -> dict[str, Any]:
    """Return the plan of a round as JSON; it is read from the stage's folder if the stage is resumed."""
    from compress.pruning.planning import make_pruning_plan  # imports torch, see `run`

    path = context.folder / f"plan-{number}.json"
    if not path.exists():
        assert cost_model is not None  # only the first process makes plans
        share = config.budget ** (number / config.rounds)
        make_pruning_plan(model, context, config, cost_model, share).save(path)
    content: dict[str, Any] = json.loads(path.read_text())
    return content
