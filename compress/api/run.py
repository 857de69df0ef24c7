"""`compress.run`: run a recipe."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from compress.pipeline import run as pipeline
from compress.pipeline.run_folder import RunFolder
from compress.process import distributed
from compress.process.console import Terminal
from compress.process.tracking import tracking
from compress.recipe import own_code, shipped
from compress.recipe import recipe as recipes
from compress.recipe.recipe import Recipe
from compress.recipe.strict_yaml import Yaml, YamlValue
from compress.report.report import Report
from runtimes.errors import InputError


def run(
    recipe: str | Path | Yaml | Recipe,
    *,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    fresh: bool = False,
    code: str | Path | Sequence[str | Path] = (),
    quiet: bool = False,
    **overrides: YamlValue,
) -> Report:
    """Train, compress, export, measure and judge as a recipe says; return the report.

    The same call resumes an interrupted run. With torchrun, only the first process returns: the others exit.

    recipe: name of a shipped recipe, path of a YAML file, or the content of one as a dict.
    out: run folder, by default runs/NAME; the report has it as `folder`.
    cache: folder for cached steps, by default the run folder; several runs can share it.
    fresh: empty the run folder first instead of resuming.
    code: Python files whose networks the recipe may name, as in `model={"arch": "my_net:build"}`; they are executed.
    quiet: show no progress.
    overrides: values of the recipe, as in `targets=["desktop-cpu"]`; a key inside a section is a dotted path, as in
        `**{"stages.0.epochs": 5}`.

    Raises InputError for a wrong recipe or folder, UnavailableError for what this machine lacks.
    """
    if code:
        own_code.use([Path(file) for file in ([code] if isinstance(code, (str, Path)) else code)])
    checked = loaded(recipe, overrides)
    with distributed.process_group():
        folder = RunFolder(
            Path(out or Path("runs") / checked.name), checked.name, fresh, None if cache is None else Path(cache)
        )
        log = folder.path / "run.log" if distributed.is_first() else None
        with (
            Terminal(log, quiet or log is None) as terminal,
            tracking(checked.tracking if distributed.is_first() else (), folder.path, checked.name) as track,
        ):
            report = pipeline.run(checked, folder, terminal, track)
    if report is None:  # not the first process
        sys.exit()
    return report


def loaded(recipe: str | Path | Yaml | Recipe, overrides: Yaml) -> Recipe:
    """Return the validated recipe with overrides; raises InputError with one line per problem."""
    assignments = [_assignment(key, value) for key, value in overrides.items()]
    if isinstance(recipe, Recipe):
        if not assignments:
            return recipe
        recipe = recipe.model_dump(mode="json")
    if isinstance(recipe, dict):
        return recipes.validated(copy.deepcopy(recipe), Path("recipe"), assignments)
    if not isinstance(recipe, (str, Path)):
        raise InputError(f"recipe: must be a name, a path or a dict, not {type(recipe).__name__}")
    return recipes.load(shipped.find(str(recipe), shipped.recipes()), assignments)


def _assignment(key: str, value: YamlValue) -> str:
    """Return an override as --set takes it."""
    try:
        plain = json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError) as error:
        raise InputError(f"{key}: must be a value that YAML can hold ({error})") from error
    text = yaml.safe_dump(plain, default_flow_style=True, width=10**9, allow_unicode=True)
    return f"{key}={text.removesuffix('...' + chr(10)).strip()}"


def _plain(value: object) -> YamlValue:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"not a {type(value).__name__}")
