"""A recipe: the validated, frozen YAML."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from compress import plugins
from compress.config import Config
from runtimes.errors import InputError
from runtimes.measure import Timing
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

if TYPE_CHECKING:
    DataConfig = ModelConfig = StageConfig = Any
else:
    DataConfig = plugins.config_union("data")
    ModelConfig = plugins.config_union("models")
    StageConfig = plugins.config_union("stages")

MAX_RECIPE_BYTES = 1 << 20


class Export(Config):
    """How the network becomes ONNX. batch: a fixed number of images, or "dynamic"."""

    opset: Annotated[int, Field(ge=18, le=24)] = 18
    batch: Annotated[int, Field(ge=1, le=4096)] | Literal["dynamic"] = "dynamic"


class Quantize(Config):
    """How float32 becomes INT8. calibration_images: at most this many, drawn from the training split by the seed."""

    engine: Literal["compress", "nncf"] = "compress"
    calibration_images: Annotated[int, Field(ge=1, le=100_000)] = 256


class Gate(Config):
    """The limits; each is judged by a one-sided bound at `confidence`, so that noise decides nothing.

    max_top1_drop_pp: percentage points. min_speedup_p50: float32 latency / INT8 latency. max_size_ratio: INT8 / float32.
    """

    max_top1_drop_pp: Annotated[float, Field(ge=0, le=100)] | None = None
    min_speedup_p50: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_size_ratio: Annotated[float, Field(gt=0, le=10)] | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95

    @model_validator(mode="after")
    def _limits_something(self) -> Gate:
        if self.max_top1_drop_pp is None and self.min_speedup_p50 is None and self.max_size_ratio is None:
            raise ValueError("a gate needs at least one of max_top1_drop_pp, min_speedup_p50, max_size_ratio")
        return self


class Recipe(Config):
    """Everything that a run is made of. name: of the run folder, too; the file's name unless given."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataConfig
    preprocessing: Preprocessing = Preprocessing()
    max_unreadable_images: Annotated[float, Field(ge=0, le=1)] = 0.01
    model: ModelConfig
    stages: tuple[StageConfig, ...] = ()
    export: Export = Export()
    quantize: Quantize | None = None
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = (Target("local"),)
    timing: Timing = Timing()
    gate: Gate | None = None

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        target_names = [target.name for target in self.targets]
        if len(set(target_names)) < len(target_names):
            raise ValueError(f"targets: must have different names, not {', '.join(target_names)}")
        if self.gate and not self.quantize:
            raise ValueError("gate: compares INT8 with float32 and needs the section quantize")
        for target in self.targets:
            if self.export.batch not in ("dynamic", target.batch):
                raise ValueError(
                    f"export.batch: must be dynamic or {target.batch}, the batch of target '{target.name}'"
                )
        return self

    def to_yaml(self) -> str:
        """Return the recipe as resolved, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; `overrides` are `dotted.key=value` with the value as YAML.

    Raises InputError with all problems at once, each with its path in the file.
    """
    content = _read(path)
    for override in overrides:
        _override(content, override)
    if isinstance(content, dict):
        content.setdefault("name", path.stem)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        lines = [_line(details, content) for details in error.errors(include_url=False)]
        raise InputError("\n".join(f"{path}: {line}" for line in lines)) from None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a recipe, for editors."""
    schema = TypeAdapter(Recipe).json_schema()
    schema["required"].remove("name")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _Loader(yaml.SafeLoader):
    """Safe YAML without two things that hide mistakes or harm: repeated keys and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not allowed", self.peek_event().start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key_node.value}' stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise InputError(f"{path}: larger than 1 MiB, not a recipe")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        shipped = [str(recipe) for recipe in shipped_recipes()]
        near = difflib.get_close_matches(str(path), shipped, n=1) or shipped[:1]
        raise InputError(f"{path}: no such recipe; for example: compress run {near[0] if near else 'RECIPE'}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as UTF-8 text: {error}") from error
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}: not valid YAML{where}: {problem}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of data, model, stages, …; see recipes/ for examples")
    return content


def shipped_recipes() -> list[Path]:
    """Return the recipes in the folder `recipes` of the working folder."""
    return sorted(Path("recipes").rglob("*.yaml"))


def _override(content: Any, override: str) -> None:
    """Set one `dotted.key=value` in place, making mappings on the way."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override}: must be key=value, for example --set stages.0.epochs=3")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError:
        raise InputError(f"--set {override}: the value is not valid YAML") from None
    *parents, last = key.split(".")
    for depth, part in enumerate([*parents, last]):
        final = depth == len(parents)
        if isinstance(content, list):
            if not re.fullmatch(r"\d+", part) or int(part) >= len(content):
                raise InputError(f"--set {override}: '{part}' must be an index from 0 to {len(content) - 1}")
            if final:
                content[int(part)] = value
            content = content[int(part)]
        elif isinstance(content, dict):
            if final:
                content[part] = value
            elif content.get(part) is None:
                content[part] = {}
            content = content[part]
        else:
            raise InputError(f"--set {override}: '{'.'.join(parents[:depth])}' is a value and has no '{part}'")


def _line(details: ErrorDetails, content: Any) -> str:
    """Turn one pydantic error into `path: what is wrong and what would work`."""
    path, where = _path(details["loc"], content)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden" or kind == "unexpected_keyword_argument":
        return f"{path}: unknown key{_near(str(details['loc'][-1]), _known_keys(details['loc']))}"
    if kind == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        choices = re.findall(r"'([^']*)'", context["expected_tags"])
        return f"{path}.{tag}: there is no '{context['tag']}'{_near(context['tag'], choices)}"
    if kind == "union_tag_not_found":
        return f"{path}: must name its {context['discriminator']}"
    if kind in ("missing", "missing_argument"):
        return f"{path}: is required"
    message = re.sub(r"^(Value error, |Assertion failed, )", "", details["msg"])
    message = re.sub(r"^Input should be", "must be", message)
    if isinstance(where, (str, int, float, bool)) and kind != "value_error":
        message += f", not {json.dumps(where)}"
    return f"{path}: {message}" if path else message


def _path(location: tuple[int | str, ...], content: Any) -> tuple[str, Any]:
    """Return the dotted path as it stands in the file, without the tags that pydantic adds for unions."""
    parts: list[str] = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(content, dict) and part in content:
            content = content[part]
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            content = content[part]
        elif not last or str(part) in _type_names():
            continue
        else:
            content = None
        parts.append(str(part))
    return ".".join(parts), content


def _type_names() -> set[str]:
    return {"int", "constrained-int", "literal['dynamic']"} | {
        name for kind in plugins.TAG for name in plugins.names(kind)  # type: ignore[arg-type]
    }


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the section at `location` (with pydantic's union tags) does know."""
    section = location[0] if len(location) > 1 else None
    if section is None:
        return list(Recipe.model_fields)
    for kind, key in (("data", "data"), ("models", "model"), ("stages", "stages")):
        if section == key:
            name = next(part for part in location if part in plugins.names(kind))  # type: ignore[arg-type]
            config: Any = plugins.load(kind, str(name)).Config  # type: ignore[arg-type]
            for part in location[location.index(name) + 1 : -1]:
                config = getattr(config.model_fields[str(part)].annotation, "model_fields", None) and config.model_fields[
                    str(part)
                ].annotation
            return list(config.model_fields)
    annotation = {"export": Export, "quantize": Quantize, "gate": Gate, "preprocessing": Preprocessing,
                  "targets": Target, "timing": Timing}[str(section)]  # fmt: skip
    return list(getattr(annotation, "model_fields", None) or annotation.__dataclass_fields__)


def _near(wrong: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(wrong, choices, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(choices)}"
