"""Load and validate recipes: YAML files that describe a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from compress.process.tracking import Tracker
from compress.quantization.config import Quantize
from compress.recipe import errors as recipe_errors
from compress.recipe import network_defaults, plugins, strict_yaml
from compress.recipe import targets as target_files
from compress.recipe.preprocessing import RecipePreprocessing
from compress.recipe.section import Config, other_name
from compress.recipe.strict_yaml import Yaml, YamlValue
from compress.verdict.gate import Gate
from runtimes.artifact import InputDtype, Output
from runtimes.clock import Timing
from runtimes.errors import InputError
from runtimes.files import JsonValue
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

if TYPE_CHECKING:
    DataConfig: TypeAlias = Any
    ModelConfig: TypeAlias = Any
    StageConfig: TypeAlias = Any
    TargetOrName: TypeAlias = Target
else:
    DataConfig = plugins.config_union("data")
    ModelConfig = plugins.config_union("models")
    StageConfig = plugins.config_union("stages")
    TargetOrName = Annotated[Target, BeforeValidator(target_files.from_recipe, json_schema_input_type=Target | str)]


class Export(Config):
    """Settings of the ONNX export.

    opset: version of ONNX's operators.
    batch: a fixed number of images, or `dynamic`.
    input: `uint8` adds the normalisation to the file, which then takes pixels of shape (N, H, W, C).
    output: `probabilities` adds the softmax to the file.
    """

    opset: Annotated[int, Field(ge=18, le=24)] = 18
    batch: Annotated[int, Field(ge=1, le=4096)] | Literal["dynamic"] = "dynamic"
    input: InputDtype = "float32"
    output: Output = "logits"


class Recipe(Config):
    """All settings of a run.

    name: of the run, and of its folder in `runs`; by default the name of the file.
    seed: of the starting weights, the augmentation and the order of images.
    device: where PyTorch trains; `auto` is the GPU if there is one.
    data: the data set; `name` selects it.
    preprocessing: how an image becomes the network's input; what is not given is as the network was trained.
    max_unreadable_images: share of images that may be unreadable; the run stops above it.
    model: the network and its starting weights; `arch` selects the network: a name from `compress list models`, or
        FILE:FUNCTION of a Python file that `--code` names.
    stages: training and compression, in this order; `stage` selects each.
    export: how the network becomes an ONNX file.
    quantize: how float32 becomes INT8; without this section there are no INT8 files.
    targets: devices, each the name of a shipped target, the path of a YAML file, or a section; by default this
        machine's CPU.
    timing: how latency is measured.
    gate: limits that decide the verdict and the exit code; without this section there is no verdict.
    tracking: programs to which the training curves are logged, `tensorboard` and `mlflow`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataConfig
    preprocessing: RecipePreprocessing = Preprocessing()
    max_unreadable_images: Annotated[float, Field(ge=0, le=1)] = 0.01
    model: ModelConfig
    stages: tuple[StageConfig, ...] = ()
    export: Export = Export()
    quantize: Quantize | None = None
    targets: Annotated[tuple[TargetOrName, ...], Field(min_length=1)] = (Target("local"),)
    timing: Timing = Timing()
    gate: Gate | None = None
    tracking: tuple[Tracker, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _take_defaults_of_network(cls, content: JsonValue) -> JsonValue:
        return network_defaults.complete(content)

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        problems = [
            f"export.batch: must be dynamic or {target.batch}, the batch of target '{target.name}'"
            for target in self.targets
            if self.export.batch not in ("dynamic", target.batch)
        ]
        target_names = [target.name for target in self.targets]
        if len(set(target_names)) < len(target_names):
            problems.append(f"targets: must have different names, not {', '.join(target_names)}")
        problems += self._gate_problems()
        for index, stage in enumerate(self.stages):
            try:
                stage.measures_on(self.targets)
            except InputError as error:
                problems.append(f"stages.{index}.{error}")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _gate_problems(self) -> list[str]:
        """Return a line for each target with one artifact only, if the gate compares artifacts."""
        prunes = any(getattr(plugins.load("stages", stage.stage), "PRUNES", False) for stage in self.stages)
        if self.gate is None or not self.gate.compares or self.quantize or prunes:
            return []
        return [
            f"gate: target '{target.name}' has one artifact only, so there is nothing to compare; add the section "
            "quantize or a stage prune, or set min_accuracy or min_recall only"
            for target in self.targets
            if target.provider == "cpu"  # GPUs get a float16 file
        ]

    def to_yaml(self) -> str:
        """Return the recipe as YAML, with all defaults."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe; `overrides` are `dotted.key=value` with the value as YAML.

    A warm-up of the file that is too long for the epochs of an override is shortened as if it were not given. Raises
    InputError with one line per problem, each with its path in the file.
    """
    return validated(strict_yaml.read(path), path, overrides)


def validated(content: Yaml, path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe with that content, which is changed in place; `path` names it, see `load`."""
    given = [assignment.partition("=")[0] for assignment in overrides]
    for key, assignment in zip(given, overrides, strict=True):
        section = strict_yaml.override(content, assignment, other_name(Recipe, key.split(".")))
        stage, _, name = key.rpartition(".")
        if name == "epochs" and f"{stage}.warmup_epochs" not in given:
            _drop_long_warmup(section)
    content.setdefault("name", re.sub("[^A-Za-z0-9_.-]|^[^A-Za-z0-9]", "-", path.stem)[:64].lstrip("-_.") or "recipe")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in recipe_errors.lines(error, Recipe, content))) from None


def _drop_long_warmup(section: YamlValue) -> None:
    """Remove a warm-up that is not shorter than the epochs."""
    if not isinstance(section, dict):
        return
    epochs, warmup = section.get("epochs"), section.get("warmup_epochs")
    if isinstance(epochs, int) and isinstance(warmup, int | float) and warmup >= epochs:
        del section["warmup_epochs"]
