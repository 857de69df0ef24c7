"""Inputs of a stage besides the network and its Config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.images.samples import Sample
from runtimes.console import Console
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Context:
    """Data, settings, folder and console of a stage. The test split is not part of it.

    name: the stage with its index, such as `0-train`.
    classes: names, in the order of the network's outputs.
    train: samples of the train split.
    device: of PyTorch, `cpu` or `cuda`.
    folder: kept between runs of the same stage with the same inputs, for checkpoints and results.
    target: that the stage measures on, None for a stage that measures nothing.
    teacher: returns a network for `baseline` (the recipe's network before its first pruning) or a model's Config.
    prepared: returns the images of `train` or `val`, resized and cropped; prepared once per run folder.
    subset: returns at most a number of images of `train` or `val`, evenly spaced, without preparing the others.
    track: logs values by name for an epoch as training curves.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    preprocessing: Preprocessing
    seed: int
    device: str
    folder: Path
    target: Target | None
    teacher: Callable[[Any], nn.Module]  # Any: the Config of whichever plug-in of compress/models
    prepared: Callable[[str], EvalSet]
    subset: Callable[[str, int], EvalSet]
    track: Callable[[int, dict[str, float]], None]
    console: Console
