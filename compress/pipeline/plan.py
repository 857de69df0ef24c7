"""Plan of a run: which steps would run, which are reused, and how long it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from compress.images.samples import Data
from compress.pipeline import duration
from compress.pipeline.checks import CHECK_IMAGES, load_data, unavailable_targets
from compress.pipeline.duration import stage_names
from compress.pipeline.images import LoadedData, RunImages
from compress.pipeline.initial import own_teachers
from compress.pipeline.networks import CHECK_NETWORK, train_networks
from compress.pipeline.outputs import build, predictions, run_images
from compress.pipeline.preflight import require_data
from compress.pipeline.steps import KnownSteps
from compress.process.table import Table
from compress.pruning.config import PruneConfig
from compress.quantization.schemes import scheme_for
from compress.recipe import named_data, plugins
from compress.recipe.recipe import Recipe
from runtimes import engine
from runtimes.errors import ArtifactError
from runtimes.target import Target


@dataclass(frozen=True)
class Plan:
    """Names of the steps of a run in order, and the expected seconds of those that run; the others are reused."""

    steps: tuple[str, ...]
    expected_s: dict[str, float]

    def summary(self) -> str:
        """Return one line with the number of steps and the expected duration."""
        if not self.expected_s:
            return f"all {len(self.steps)} steps are reused"
        total = duration.in_words(sum(self.expected_s.values()))
        if len(self.expected_s) == len(self.steps):
            return f"estimate: {total}; all {len(self.steps)} steps run"
        return f"estimate: {total}; {len(self.expected_s)} of {len(self.steps)} steps run, the others are reused"

    def table(self) -> Table:
        """Return one row per step."""
        rows = [
            (name, "runs", _short(self.expected_s[name])) if name in self.expected_s else (name, "reused", "")
            for name in self.steps
        ]
        return Table.of("", "<step|<state|estimate", rows)


def of_recipe(recipe: Recipe, cache: Path) -> Plan:
    """Return the plan of a run that has not started, and write nothing. cache: with the results of earlier steps."""
    steps = KnownSteps(cache)
    try:
        return of_data(recipe, load_data(recipe, steps), cache)
    except FileNotFoundError:
        if CHECK_IMAGES in steps.folders:
            raise
    # The images have not been checked; every step depends on that.
    data = named_data.load_config(recipe.data)
    require_data(recipe, data)
    names = tuple(dict.fromkeys(step_names(recipe, data, unavailable_targets(recipe))))
    images = run_images(recipe, LoadedData.of(data, recipe.data), steps)
    return Plan(names, duration.expected_s(recipe, names, data, duration.earlier_s(recipe, images)))


def of_data(recipe: Recipe, loaded: LoadedData, cache: Path) -> Plan:
    """Return the plan of a run on images that have been checked."""
    steps, unavailable = KnownSteps(cache), unavailable_targets(recipe)
    images = run_images(recipe, loaded, steps)
    _look_up(recipe, images, unavailable)
    steps.folders.setdefault(CHECK_IMAGES, cache)
    reused = steps.folders.keys() - steps.missing
    names = tuple(dict.fromkeys([*step_names(recipe, loaded.data, unavailable), *steps.folders, *steps.missing]))
    new = [name for name in names if name not in reused]
    earlier = duration.earlier_s(recipe, images) if new else {}
    return Plan(names, duration.expected_s(recipe, new, loaded.data, earlier))


def _short(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else duration.in_words(seconds).removeprefix("about ")


def estimate_s(recipe: Recipe, data: Data) -> float:
    """Return the seconds that a run without earlier steps is expected to take."""
    names = dict.fromkeys(step_names(recipe, data, unavailable_targets(recipe)))
    return sum(duration.expected_s(recipe, names, data, {}).values())


def step_names(recipe: Recipe, data: Data, unavailable: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the names of a run's steps in order, some twice; steps inside a step count as part of it.

    Whether branches are fused is known once the network is built.

    unavailable: why a target can't be measured on this machine, by its name; None where it can.
    """
    stages = stage_names(recipe)
    yield from (CHECK_IMAGES, "network")
    yield from (f"teacher-{number}" for number, _ in enumerate(own_teachers(recipe.stages)))
    if any(isinstance(stage, PruneConfig) for stage in recipe.stages):
        yield CHECK_NETWORK
    yield from stages
    if any(getattr(plugins.load("stages", stage.stage), "PRUNES", False) for stage in recipe.stages):
        yield "baseline"
    yield "float32"
    for target in recipe.targets:
        is_here = unavailable[target.name] is None
        yield from _file_steps(recipe, target, is_here)
        if is_here:
            if data.val and all(sample.label is not None for sample in data.val):
                yield f"val-{target.name}"
            yield f"measure-{target.name}"
    yield "images-test"
    yield from (f"predictions-{stage}" for stage in stages)


def _file_steps(recipe: Recipe, target: Target, is_here: bool) -> Iterator[str]:
    """Yield the names of the steps that make a target's files from float32."""
    precisions = ["float32"]
    if (recipe.export.input, recipe.export.output) != ("float32", "logits"):
        yield "self-contained"
    if target.provider == "cuda":
        precisions.append("float16")
        yield "float16"
    if recipe.quantize and (target.provider == "cpu" or target.runtime == "trt"):
        precisions.append("int8")
        yield f"int8-{scheme_for(target).name}"
    if target.runtime == "trt" and (is_here or engine.why_not_built(target) is None):
        yield from (f"engine-{target.name}-{precision}" for precision in precisions)


def _look_up(recipe: Recipe, images: RunImages, unavailable: Mapping[str, str | None]) -> None:
    """Follow the pipeline as far as the results of earlier steps are there."""
    with suppress(FileNotFoundError):
        networks = train_networks(recipe, images.steps, images)
        for work in (
            partial(build, recipe, images, networks, unavailable),
            partial(predictions, networks, images, recipe.device),
            images.of("test").prepared,
        ):
            with suppress(FileNotFoundError, ArtifactError):
                work()
