"""Checks of a recipe before any work: weights, names of modules and layers, splits and labels.

`compress validate` makes them without a run; `compress run` makes them first.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from compress.images.samples import SPLITS, Data
from compress.networks import hub
from compress.networks.sources import weights_file
from compress.pipeline.initial import ModelConfig, StageConfig, own_teachers, trainings, untrained_notes
from compress.pruning.config import PruneConfig
from compress.quantization.config import BUDGETS, MIN_IMAGES
from compress.recipe import named_data, network_defaults, plugins
from compress.recipe.recipe import Recipe
from compress.training.config import FitConfig
from compress.verdict import gate
from runtimes.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from torch import nn

Problem: TypeAlias = InputError | UnavailableError

ANY_CLASSES = 10  # names of modules do not depend on the number of classes


def require_recipe(recipe: Recipe) -> None:
    """Raise InputError with every problem of weights and names, one per line; needs neither data nor training.

    Networks are built only where names of modules, or of published weights, have to be looked up: torch takes seconds
    to import. Raises UnavailableError if the only problems are packages that are not installed on this machine.
    """
    own = list(_own_networks(recipe))  # if one fails, nothing else is known about it
    problems = [*own, *_weights(recipe), *_augmentations(recipe)]
    problems += [] if own else [*_names(recipe), *_images(recipe)]
    wrong = [str(problem) for problem in problems if isinstance(problem, InputError)]
    if wrong:
        raise InputError("\n".join(wrong))
    if problems:
        raise UnavailableError("\n".join(map(str, problems)))


def download_weights(recipe: Recipe) -> None:
    """Download the weights that `hf:REPO` names: the keys of steps depend on the bytes of the file."""
    for section in [recipe.model, *own_teachers(recipe.stages)]:
        if section.weights is not None and section.weights.startswith(hub.HUB):
            weights_file(section.weights)


def require_data(recipe: Recipe, data: Data) -> None:
    """Raise InputError for a split that the recipe needs and the data set lacks, and for budgets that need labels."""
    if not data.test:
        raise InputError("the data set has no test split to measure on; give data.test or data.root")
    if recipe.gate:
        gate.refuse_unknown(recipe.gate, known_labels(data), data.classes)
    if recipe.stages and not (data.train and data.val):
        raise InputError("the stages need the splits train and val; give data.root or data.train")
    if any(trainings(stage) for stage in recipe.stages) and len(data.train) < 2:
        raise InputError("training needs at least two images in the split train; add images")
    _require_calibration(recipe, data)


def known_labels(data: Data) -> npt.NDArray[np.int64] | None:
    """Return the class of each test image, None if any is unknown."""
    known = [sample.label for sample in data.test if sample.label is not None]
    return np.asarray(known, np.int64) if len(known) == len(data.test) else None


def require_data_here(recipe: Recipe) -> None:
    """Load the data set and check it as `require_data`.

    Raises InputError with a line for each missing file or folder, UnavailableError for a data set on another machine.
    """
    missing = [f"data.{key}: {value}: no such file or folder; correct the path, or validate where it is"
               for key, value in recipe.data if _is_missing(key, value)]  # fmt: skip
    if missing:
        raise InputError("\n".join(missing))
    for key, value in recipe.data:
        if isinstance(value, str) and "://" in value:
            raise UnavailableError(f"data.{key}: {value} is not on this machine")
    require_data(recipe, named_data.load_config(recipe.data))


def _is_missing(key: str, value: object) -> bool:
    """Return whether a setting of the data set names a file or folder that is not there."""
    is_path = isinstance(value, Path) or (key in ("root", *SPLITS) and isinstance(value, str) and "://" not in value)
    return is_path and not Path(str(value)).exists()


def _require_calibration(recipe: Recipe, data: Data) -> None:
    """Raise InputError for an accuracy budget of INT8 that could not fail, or that has no labels."""
    settings, images = recipe.quantize, data.calibration or data.train
    if settings is None or not images:
        return
    if settings.max_top1_drop_pp is not None and any(image.label is None for image in images):
        raise InputError("quantize.max_top1_drop_pp: the calibration images have no labels; set min_agreement instead")
    budgets = [name for name in BUDGETS if getattr(settings, name) is not None]
    if budgets and len(images) < MIN_IMAGES:
        raise InputError(
            f"quantize.{budgets[0]}: {len(images)} calibration images are too few to hold some out; give at least "
            f"{MIN_IMAGES}, or remove {budgets[0]}"
        )


def _own_networks(recipe: Recipe) -> Iterator[Problem]:
    """Yield the problems of networks that are not built in, after a forward pass."""
    for where, section in _networks(recipe):
        if plugins.origin(section) is not None:
            from compress.networks import architecture  # imports torch

            yield from _problem(where, architecture.require_usable, section, recipe.preprocessing.input_shape)


def _networks(recipe: Recipe) -> Iterator[tuple[str, ModelConfig]]:
    """Yield the sections of the network and of teachers, with the start of the paths of their keys."""
    yield "model.", recipe.model
    for index, stage in enumerate(recipe.stages):
        for key, fit in trainings(stage):
            if fit.teacher is not None and not isinstance(fit.teacher.network, str):
                yield f"stages.{index}{key}.teacher.network.", fit.teacher.network


def _weights(recipe: Recipe) -> Iterator[Problem]:
    """Yield the problems of the files and names of weights."""
    for where, section in _networks(recipe):
        yield from _problem(where, _require_weights, section)
    if recipe.model.weights is None:
        yield from _problem("", untrained_notes, recipe, ("*",))


def _require_weights(section: ModelConfig) -> None:
    if section.weights is None:
        return
    if section.weights.startswith(hub.HUB):
        hub.require(section.weights)
    elif weights_file(section.weights) is None:
        from compress.networks import published  # imports torch

        published.require(section)


def _augmentations(recipe: Recipe) -> Iterator[Problem]:
    """Yield the problems of augmentations that the images do not allow."""
    for index, stage in enumerate(recipe.stages):
        for key, fit in trainings(stage):
            yield from _problem(f"stages.{index}{key}.augment.", fit.augment.require_fit, recipe.preprocessing)


def _images(recipe: Recipe) -> Iterator[Problem]:
    """Yield the problem of a built-in network that does not take the images.

    It is built and run if the images are not square and RGB, or if it is of a family that does not take every size.
    """
    channels, height, width = shape = recipe.preprocessing.input_shape
    for where, section in [("model", recipe.model), *(("teacher", own) for own in own_teachers(recipe.stages))]:
        other_shape = channels != 3 or height != width
        is_built_in = plugins.origin(section) is None
        if is_built_in and (other_shape or hasattr(plugins.load("models", section.arch), "CHECK_FORWARD")):
            yield from _problem(f"{where}: {getattr(section, 'name', section.arch)}: ", _require_takes, section, shape)
    if network_defaults.has_fixed_size(recipe.model):
        for index, stage in enumerate(recipe.stages):
            for key, fit in trainings(stage):
                if fit.resize_from is not None:
                    yield InputError(f"stages.{index}{key}.resize_from: {fit.resize_from}: the network takes images of "
                                     "one size only; remove resize_from")  # fmt: skip


def _require_takes(section: ModelConfig, shape: tuple[int, int, int]) -> None:
    from compress.networks.channels import require_takes, take_channels  # import torch

    network = _built(section)
    take_channels(network, shape[0])
    require_takes(network, shape)


def _names(recipe: Recipe) -> Iterator[Problem]:
    """Yield the problems of all names and patterns of modules and layers."""
    network: nn.Module | None = None
    is_fused = False
    for index, stage in enumerate(recipe.stages):
        is_fused = is_fused or getattr(plugins.load("stages", stage.stage), "TRAINS_EXPORTED", False)
        if _has_names(stage):
            from compress.networks.fusion import fused  # imports torch

            network = network or _built(recipe.model)
            yield from _stage_names(f"stages.{index}", stage, fused(network) if is_fused else network)


def _has_names(stage: StageConfig) -> bool:
    fits = [fit for _, fit in trainings(stage)]
    in_training = any(fit.freeze or fit.lr_scale or (fit.teacher and fit.teacher.layers) for fit in fits)
    return in_training or (isinstance(stage, PruneConfig) and bool(stage.keep or stage.limits))


def _built(section: ModelConfig) -> nn.Module:
    from compress.networks import architecture  # imports torch

    return architecture.build(section, ANY_CLASSES)


def _stage_names(where: str, stage: StageConfig, network: nn.Module) -> Iterator[Problem]:
    from compress.networks.layers import layer_shapes  # imports torch
    from compress.training.optimization import names_matching

    layers = list(layer_shapes(network))
    if isinstance(stage, PruneConfig):
        for key in ("keep", "limits"):
            for pattern in getattr(stage, key):
                yield from _problem(f"{where}.", names_matching, layers, pattern, key, "layer")
    modules = [name for name, _ in network.named_modules() if name]
    for key, fit in trainings(stage):
        names = modules if fit.TRAINS_MODULES else [name for name in modules if any(_within(layers, name))]
        for setting in ("freeze", "lr_scale"):
            for pattern in getattr(fit, setting):
                yield from _problem(f"{where}{key}.", names_matching, names, pattern, setting)
        trained = [name for name, _ in network.named_parameters()] if fit.TRAINS_MODULES else layers
        yield from _problem(f"{where}{key}.", _require_trained, fit, names, trained)
        yield from _teacher_layers(f"{where}{key}.", fit, modules)


def _within(names: Iterable[str], module: str) -> Iterator[bool]:
    """Yield for each name whether it is the module's or that of a part of it."""
    return (f"{name}.".startswith(f"{module}.") for name in names)


def _require_trained(fit: FitConfig, names: list[str], trained: list[str]) -> None:
    """Raise InputError if freeze leaves nothing to train."""
    frozen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in fit.freeze)]
    left = [name for name in trained if not any(f"{name}.".startswith(f"{module}.") for module in frozen)]
    if frozen and not left:
        raise InputError(f"freeze: {', '.join(fit.freeze)}: nothing is left to train; freeze fewer modules")


def _teacher_layers(where: str, fit: FitConfig, modules: list[str]) -> Iterator[Problem]:
    if fit.teacher is None or not fit.teacher.layers:
        return
    from compress.training.optimization import unknown_name  # imports torch

    section, of_teacher = fit.teacher.network, modules
    if not isinstance(section, str):
        of_teacher = [name for name, _ in _built(section).named_modules() if name]
    for own, other in fit.teacher.layers.items():
        for names, name in ((modules, own), (of_teacher, other)):
            if name not in names:
                yield InputError(f"{where}{unknown_name(names, name, 'teacher.layers')}")


def _problem(where: str, check: Callable[..., object], *arguments: object) -> Iterator[Problem]:
    """Yield the error of a check that fails, with its place in the recipe."""
    try:
        check(*arguments)
    except (InputError, UnavailableError) as error:
        yield type(error)(f"{where}{error}")
