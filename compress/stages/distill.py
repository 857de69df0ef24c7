"""Train a network with a teacher: the network before pruning, or another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.training.config import FitConfig, Teacher

if TYPE_CHECKING:
    from torch import nn

    from compress.training.context import Context


class Config(FitConfig):
    """Cross-entropy on the train split with a teacher, by default the network before the first stage `prune`."""

    stage: Literal["distill"] = "distill"
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-3
    teacher: Teacher = Teacher()


def run(network: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the trained network."""
    # Imported here because it imports torch, and reading a recipe imports every stage for its Config.
    from compress.training import teaching

    return teaching.train(network, context, config)
