"""Checks before any work: runtimes, targets, data."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from compress.images import exclusion, suitability
from compress.images.samples import Rejected
from compress.pipeline import finished_run, preflight
from compress.pipeline.images import LoadedData
from compress.pipeline.preflight import known_labels
from compress.pipeline.run_folder import SEEN
from compress.pipeline.steps import Step, Steps, step_options
from compress.recipe import named_data
from compress.recipe.recipe import Recipe
from compress.verdict import gate
from runtimes import environment
from runtimes.console import Console
from runtimes.errors import InputError, UnavailableError
from runtimes.files import read_json, replacing, write_json
from runtimes.session import package_of

EXCLUDED = "excluded.json"
CHECK_IMAGES = "check-images"
SHOWN = 100  # excluded images on the console; the report has all


def unavailable_targets(recipe: Recipe) -> dict[str, str | None]:
    """Return by target's name why it can't be measured on this machine, None where it can.

    Raises UnavailableError or InputError if a runtime is missing, no target can be measured, or a stage needs a target
    that can't be measured.
    """
    _require_runtimes(recipe)
    reasons = {target.name: environment.why_not_here(target) for target in recipe.targets}
    if all(reasons.values()):
        listed = "; ".join(f"target '{name}': {reason}" for name, reason in reasons.items())
        raise UnavailableError(f"no target can be measured on this machine; add one that can: {listed}")
    for index, stage in enumerate(recipe.stages):
        needed = stage.measures_on(recipe.targets)
        if needed and reasons[needed.name]:
            raise UnavailableError(
                f"stages.{index}: target '{needed.name}' can't be measured here, {reasons[needed.name]}; "
                "name another target, or give macs instead of latency"
            )
    return reasons


def _require_runtimes(recipe: Recipe) -> None:
    for target in recipe.targets:
        if target.runtime == "litert":
            raise InputError(
                f"target '{target.name}': a recipe writes ONNX files and engines; convert its ONNX file with "
                "python -m export.to_litert and measure that with: compress measure FILE --runtime litert"
            )
        package = package_of(target.runtime)
        if target.runtime != "trt" and package and not environment.package_versions((package,)):
            raise UnavailableError(f"target '{target.name}': its runtime needs a package: pip install {package}")


def load_data(recipe: Recipe, steps: Steps) -> LoadedData:
    """Load the data set without unreadable images; the search for them is a cached step.

    Raises InputError for a split that the recipe needs and the data set lacks, and for too many unreadable images.
    """
    data = named_data.load_config(recipe.data)
    for note in data.notes():
        steps.console.say(note)
    preflight.require_data(recipe, data)
    folder = steps.run(
        check_images, CHECK_IMAGES, source=LoadedData.of(data, recipe.data), max_unreadable=recipe.max_unreadable_images
    )
    content = read_json(folder / EXCLUDED)
    rejected = tuple(Rejected(**fields) for fields in content["rejected"])
    unsuitable = suitability.doubts(data.test, recipe.preprocessing)
    for doubt in unsuitable:
        steps.console.say(f"doubtful: {doubt}")
    kept = replace(exclusion.without(data, rejected), doubts=(*content["doubts"], *unsuitable))
    trained_on = finished_run.trained_on(recipe, kept)
    _say_excluded(trained_on, steps.console)
    kept = exclusion.exclude(kept, trained_on)
    preflight.require_data(recipe, kept)  # again, because the excluded images may be all of a class
    if recipe.gate:
        for line in gate.out_of_reach(recipe.gate, known_labels(kept), len(kept.test), kept.classes):
            steps.console.say(f"gate.{line}")
    return LoadedData.of(kept, recipe.data)


@step_options(packages=("pillow", "simplejpeg"))
def check_images(step: Step, source: LoadedData, max_unreadable: float) -> None:
    """Decode every image once; list the unreadable ones and copies of test images, and write digests of the others."""
    examined = exclusion.examine(source.data, max_unreadable, step.console)
    kept = examined.data
    with replacing(step.folder / SEEN) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **examined.digests)  # type: ignore[arg-type]  # numpy: "expected bool", of allow_pickle
    content = {"rejected": [asdict(image) for image in kept.rejected], "doubts": kept.doubts}
    write_json(step.folder / EXCLUDED, content)
    _say_excluded(kept.rejected, step.console)
    for doubt in kept.doubts:
        step.console.say(f"doubtful: {doubt}")


def _say_excluded(images: tuple[Rejected, ...], console: Console) -> None:
    for image in images[:SHOWN]:
        console.say(f"set aside: {image.name}: {image.reason}")
    if len(images) > SHOWN:
        console.say(f"set aside: {len(images) - SHOWN} more images, listed in the report")
