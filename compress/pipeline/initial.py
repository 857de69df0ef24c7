"""Checks of initial networks: nothing random may teach, or be exported in place of loaded weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from compress.recipe import plugins
from compress.recipe.recipe import Recipe
from compress.training.config import FitConfig
from runtimes.errors import InputError

StageConfig: TypeAlias = Any  # the Config of a stage's plug-in
ModelConfig: TypeAlias = Any  # the Config of a model's plug-in


def trainings(stage: StageConfig) -> list[tuple[str, FitConfig]]:
    """Return the settings of each training in a stage, with their key below the stage's: `` or `.fine_tune`."""
    if isinstance(stage, FitConfig):
        return [("", stage)]
    parts = [(name, getattr(stage, name)) for name in type(stage).model_fields]
    return [(f".{name}", part) for name, part in parts if isinstance(part, FitConfig)]


def own_teachers(stages: Iterable[StageConfig]) -> list[ModelConfig]:
    """Return the sections of all teachers that are networks of their own, each once."""
    teachers = [fit.teacher for stage in stages for _, fit in trainings(stage) if fit.teacher is not None]
    sections: list[ModelConfig] = []
    for teacher in teachers:
        if not isinstance(teacher.network, str) and teacher.network not in sections:
            sections.append(teacher.network)
    return sections


def require_trained_teacher(section: ModelConfig, random: Sequence[str]) -> None:
    """Raise InputError for a teacher with a random classifier. random: names of its modules that were not loaded."""
    if random:
        raise InputError(
            f"teacher: weights: {section.weights}: belong to other classes, so the teacher's classifier "
            f"({', '.join(random)}) would be random and teach nothing; give weights that were trained on these classes"
        )


def untrained_notes(recipe: Recipe, random: Sequence[str]) -> list[str]:
    """Return notes about a network that stays random.

    random: names of the modules that have random weights at the start, `*` for all. Raises InputError if a random
    classifier would teach, would be exported in place of loaded weights, or would be in the gate's baseline.
    """
    untrained, unpruned = set(random), None
    for index, stage in enumerate(recipe.stages):
        if getattr(plugins.load("stages", stage.stage), "PRUNES", False) and unpruned is None:
            unpruned = set(untrained)
        for key, fit in trainings(stage):
            source = None if fit.teacher is None else fit.teacher.network
            baseline = untrained if unpruned is None else unpruned
            if (source == "before" and untrained) or (source == "baseline" and baseline):
                raise InputError(_random_teacher(f"stages.{index}{key}.teacher", source, recipe))
            untrained = {module for module in untrained if _is_frozen(module, fit.freeze)}
    if not untrained:
        return _baseline_notes(recipe, unpruned or set())
    if recipe.model.weights is None:
        return ["model: random weights, and no stage trains them: accuracy and agreement mean nothing, latency does"]
    raise InputError(
        f"model.weights: {recipe.model.weights}: belong to other classes, and no stage trains the random classifier "
        f"({', '.join(sorted(untrained))}); add a stage train, or give weights that were trained on these classes"
    )


def code_notes(recipe: Recipe) -> list[str]:
    """Return a note for each plug-in of the recipe that is not built in: its owner and the sha256 of its code."""
    networks = {section.arch: section for section in (recipe.model, *own_teachers(recipe.stages))}
    stages = {stage.stage: stage for stage in recipe.stages}
    used = {**networks, recipe.data.name: recipe.data, **stages}
    origins = ((name, plugins.origin(section)) for name, section in used.items())
    return [code.line(name) for name, code in origins if code is not None]


def _baseline_notes(recipe: Recipe, random: set[str]) -> list[str]:
    """Return notes about a baseline with random modules: the network before the first stage that prunes.

    Raises InputError for a gate that would compare the predictions of a trained network with those of a random one.
    """
    if not random:
        return []
    what = "random weights" if recipe.model.weights is None else f"a random classifier ({', '.join(sorted(random))})"
    gate = recipe.gate
    if recipe.model.weights is not None and gate and (gate.max_drop_pp is not None or gate.min_agreement is not None):
        raise InputError(f"gate: the baseline, which is the network before the first stage prune, has {what}, so that "
                         "no network could be worse; add a stage train before it")  # fmt: skip
    return [f"the baseline, which is the network before the first stage prune, has {what}: its accuracy and the change "
            "from it mean nothing; add a stage train before it"]  # fmt: skip


def _is_frozen(module: str, patterns: tuple[str, ...]) -> bool:
    parts = module.split(".")
    enclosing = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return module != "*" and any(fnmatch.fnmatchcase(name, pattern) for name in enclosing for pattern in patterns)


def _random_teacher(key: str, network: str, recipe: Recipe) -> str:
    what = "random weights" if recipe.model.weights is None else "a random classifier"
    return (
        f"{key}: the network '{network}' has {what} there and would teach nothing; add a stage train before it, or "
        "start from weights that were trained on these classes"
    )
