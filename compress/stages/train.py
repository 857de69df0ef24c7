"""Train a network, or fine-tune it if the model section names weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from compress.training.config import FitConfig

if TYPE_CHECKING:
    from torch import nn

    from compress.training.context import Context


class Config(FitConfig):
    """Cross-entropy on the train split, with a teacher if one is named."""

    stage: Literal["train"] = "train"


def run(network: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the trained network."""
    # Imported here because it imports torch, and reading a recipe imports every stage for its Config.
    from compress.training import teaching

    return teaching.train(network, context, config)
