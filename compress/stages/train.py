"""Train, or fine-tune where the model section names weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from compress.training.config import FitConfig

if TYPE_CHECKING:
    from torch import nn

    from compress.training.context import Context


class Config(FitConfig):
    """Cross-entropy on the train split, with a teacher if one is named; see `compress.training.config.FitConfig`."""

    stage: Literal["train"] = "train"


def run(model: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the trained network."""
    from compress.training import teaching

    return teaching.train(model, context, config)
