"""Train, or fine-tune where the model section names weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from compress.training.config import FitConfig

if TYPE_CHECKING:
    from torch import nn

    from compress.context import Context


class Config(FitConfig):
    """Cross-entropy on the train split; see `compress.training.config.FitConfig`."""

    stage: Literal["train"] = "train"


def run(model: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the trained network."""
    from compress.losses import cross_entropy
    from compress.training.loop import fit

    return fit(model, context, config, cross_entropy(config.label_smoothing))
