"""Learn from a teacher: the network before it was pruned, or another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.training.config import FitConfig, Teacher

if TYPE_CHECKING:
    from torch import nn

    from compress.training.context import Context


class Config(FitConfig):
    """Like `train`, with a teacher that is there by default; see `compress.training.config.Teacher`."""

    stage: Literal["distill"] = "distill"
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-3
    teacher: Teacher = Teacher()


def run(model: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the trained network."""
    from compress.training.teaching import train

    return train(model, context, config)
