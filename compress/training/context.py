"""What every stage may use."""

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
    """The data but for the test split, the seed, the device, the stage's own folder, and a way to tell the user.

    name: of the stage with its index.
    folder: kept between runs of the same stage with the same inputs; a stage may leave there what it resumes from.
    targets: of the recipe, in its order.
    teacher: a network to learn from: the recipe's own before it was pruned ("baseline"), or that of a `model` section.
    prepared: the images of train or val, resized and cropped; made once per run folder.
    some: at most so many images of train or val, spread over all, without preparing the rest.
    track: hands (epoch, values by name) to the programs that draw training curves.
    console: shows messages and progress.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    preprocessing: Preprocessing
    seed: int
    device: str
    folder: Path
    targets: tuple[Target, ...]
    teacher: Callable[[Any], nn.Module]
    prepared: Callable[[str], EvalSet]
    some: Callable[[str, int], EvalSet]
    track: Callable[[int, dict[str, float]], None]
    console: Console
