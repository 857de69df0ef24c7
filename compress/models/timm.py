"""Any image classifier of timm, by its name."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from compress.recipe.section import NetworkConfig
from runtimes.errors import InputError
from runtimes.files import JsonValue
from runtimes.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT_WEIGHTS = "pretrained"  # stands for the tag that timm itself would choose
LISTED_TAGS = 6
# Errors of timm's networks for images of a size that they can't take, and of its conversions for other files.
TIMM_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
CHECK_FORWARD = True  # build the network before a run: not every one takes images of every size


class Config(NetworkConfig):
    """Any image classifier of timm.

    name: in timm, as `compress list models --timm PATTERN` prints it. The tag of its published weights may follow, as
        in `mobilenetv4_conv_small.e2400_r224_in1k`; it decides the preprocessing, and what `weights: pretrained` is.
    weights: a file, `package:NAME`, `hf:REPO`, or weights that timm publishes: `pretrained` or a tag such as
        `e2400_r224_in1k`; null for random ones.
    """

    arch: Literal["timm"] = "timm"
    name: str
    # (height, width) for a network that takes no other; the recipe sets it to the crop of its preprocessing
    image_size: SkipJsonSchema[Annotated[tuple[int, int] | None, Field(exclude=True)]] = None

    @field_validator("name")
    @classmethod
    def _require_known(cls, name: str) -> str:
        _require_name(name)
        return name

    @model_validator(mode="before")
    @classmethod
    def _without_network(cls, content: JsonValue) -> JsonValue:
        """Replace `weights: NETWORK.TAG` by the tag."""
        if not isinstance(content, dict):
            return content
        network, _, tag = str(content.get("weights")).partition(".")
        if network == str(content.get("name")).partition(".")[0] and tag in _tags(network):
            return {**content, "weights": tag}
        return content

    @property
    def network(self) -> str:
        """The name without a tag."""
        return self.name.partition(".")[0]

    @property
    def tag(self) -> str:
        """The tag of the published weights that the preprocessing belongs to; empty if timm publishes none."""
        own, tags = self.name.partition(".")[2], _tags(self.network)
        if self.weights in tags:
            return self.weights
        return own or next(iter(tags), "")


def build(config: Config, num_classes: int) -> nn.Module:
    """Return the network with random weights.

    The classifier gets PyTorch's initial values: timm's, up to 1 / sqrt(classes) for some networks, are twenty times as
    large for few classes, and fine-tuning on few images was worse. Raises InputError for a size that it can't take.
    """
    from torch import nn

    network = _created(config, num_classes=num_classes)
    for name in classifiers(network):
        classifier = network.get_submodule(name)
        if isinstance(classifier, nn.Linear):
            classifier.reset_parameters()
    return network


def classifiers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers whose outputs are the classes; some networks average those of two.

    None for a network whose layers are other ones now, because they were fused.
    """
    recorded: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    names = recorded.get("classifier") or ()
    layers = dict(network.named_modules())
    return tuple(name for name in ((names,) if isinstance(names, str) else names) if name in layers)


def preprocessing(config: Config) -> Preprocessing:
    """Return the preprocessing with which the network was trained; also for a network without published weights."""
    return recorded_preprocessing(vars(_registered(f"{config.network}.{config.tag}" if config.tag else config.network)))


def recorded_preprocessing(settings: Mapping[str, Any]) -> Preprocessing:  # Any: numbers, texts and tuples of timm
    """Return the preprocessing that timm records of a network, also as `pretrained_cfg` of its modules."""
    _, height, width = settings["input_size"]
    resize = math.floor(min(height, width) / min(settings["crop_pct"], 1))  # above 1, timm pads the image
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return Preprocessing(resize, (height, width), settings["interpolation"], mean, std)


def has_fixed_size(config: Config) -> bool:
    """Return whether the network is built for images of one size."""
    return bool(_registered(config.network).fixed_input_size)


def published(config: Config) -> None:
    """Return None: torchvision publishes no weights under timm's names."""


def require_published(config: Config) -> None:
    """Raise InputError if `config.weights` names no weights that timm publishes for the network."""
    tags, network, tag = _tags(config.network), config.network, config.weights
    if not tags:
        raise InputError(f"weights: '{tag}': timm publishes no weights for {network}")
    if tag != DEFAULT_WEIGHTS and tag not in tags:
        shown = [DEFAULT_WEIGHTS, *tags[:LISTED_TAGS], *(["…"] if len(tags) > LISTED_TAGS else [])]
        raise InputError(f"weights: no '{tag}' for {network}; choose from {', '.join(shown)}")


def published_repository(config: Config) -> str | None:
    """Return where on the Hugging Face Hub the published weights are; None for those that are elsewhere."""
    repository: str | None = _registered(f"{config.network}.{config.tag}").hf_hub_id
    return repository


def published_tensors(config: Config, file: Path | None) -> dict[str, Tensor]:
    """Return the weights that timm publishes, with their own classifier, in the form for the size of the images.

    file: with the weights; None for timm to download them.
    """
    overlay = {"pretrained_cfg_overlay": {"file": str(file)}} if file else {}
    return dict(_created(config, pretrained=True, **overlay).state_dict())


def converted(config: Config, network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of another form of the network as timm converts published ones.

    It resizes position embeddings to the network's size and renames tensors of the original authors. The tensors stay
    as they are where timm has no conversion or it fails.
    """
    from timm.models import model_entrypoint

    convert = getattr(sys.modules[model_entrypoint(config.network).__module__], "checkpoint_filter_fn", None)
    try:
        result: dict[str, Tensor] = convert(dict(tensors), network) if convert else tensors
    except TIMM_ERRORS:
        return tensors
    return result


def matching_names(pattern: str) -> list[str]:
    """Return timm's names that match a pattern as of files; a word without wildcards matches the names that hold it.

    A pattern with a dot matches names with their tags. Raises InputError with similar names if none matches.
    """
    from timm import list_models

    given = pattern.lower()
    wildcards = given if any(character in given for character in "*?[") else f"*{given}*"
    names: list[str] = list_models(wildcards, include_tags="." in given)
    if not names:
        raise InputError(f"--timm {pattern}: timm has no such network{_advice(pattern)}")
    return names


def facts(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the size of the images that a network was made for, and the tags of its published weights."""
    own = _registered(name)
    network, _, tag = name.partition(".")
    _, height, width = own.input_size
    tags = _tags(network)
    return (str(height) if height == width else f"{height}x{width}",
            tags if not tag else tuple(known for known in tags if known == tag))  # fmt: skip


def _created(config: Config, **options: Any) -> nn.Module:  # Any: arguments of timm
    """Call timm; raises InputError where the network can't be built for the images."""
    from timm import create_model

    size: dict[str, Any] = {"img_size": config.image_size} if config.image_size and has_fixed_size(config) else {}
    name = f"{config.network}.{config.tag}" if config.tag else config.name
    if options.get("pretrained"):
        network: nn.Module = create_model(name, **size, **options)
        return network
    try:
        network = create_model(name, **size, **options)
    except TIMM_ERRORS as error:
        raise InputError(f"name: {config.network}: {refusal(error, config.image_size)}") from error
    return network


def refusal(error: Exception, size: tuple[int, int] | None) -> str:
    """Say that a network can't be built for a size."""
    of_size = f" for images of {size[0]} x {size[1]} pixels" if size else ""
    return f"can't be built{of_size} ({str(error).partition(chr(10))[0]}); set preprocessing.crop to another size"


def _registered(name: str) -> Any:  # Any: timm's PretrainedCfg
    """Return what timm records of a network, with the tag of its weights or without."""
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name)


def _tags(network: str) -> tuple[str, ...]:
    """Return the tags of the published weights, timm's choice first."""
    from timm import list_models

    names = [name for name in list_models(f"{network}.*", include_tags=True) if _registered(name).has_weights]
    first = _registered(network) if names else None
    tags = [name.partition(".")[2] for name in names]
    return tuple(sorted(tags, key=lambda tag: tag != first.tag)) if first else ()


def _require_name(name: str) -> None:
    """Raise ValueError, with similar names, for what is no network of timm."""
    try:
        from timm.models import get_deprecated_models, list_models
    except ImportError as error:
        raise ValueError("needs the package timm: pip install timm") from error
    network, dot, tag = name.partition(".")
    known = list_models()
    if network not in known:
        renamed = get_deprecated_models().get(network)
        advice = f"; it is called '{renamed}' now" if renamed else _advice(name)
        raise ValueError(f"timm has no network '{network}'{advice}")
    tags = [known_name.partition(".")[2] for known_name in list_models(f"{network}.*", include_tags=True)]
    if dot and tag not in tags:
        raise ValueError(f"timm has no '{tag}' of {network}; {_nearest_tag(tag, tags)}")


def _nearest_tag(wrong: str, tags: list[str]) -> str:
    close = difflib.get_close_matches(wrong, tags, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose from {', '.join(tags)}" if tags else "leave out the dot and what follows"


def _advice(wrong: str) -> str:
    """Return the end of a message about an unknown name: similar ones, or how to list all."""
    from timm import list_models

    plain = wrong.strip("*").partition(".")[0].lower().replace("-", "_")
    known: list[str] = list_models()
    holding = sorted((name for name in known if plain and plain in name), key=len)
    close = list(dict.fromkeys([*holding[:3], *difflib.get_close_matches(plain, known, n=3)]))[:3]
    if not close:
        return "; compress list models --timm PATTERN lists its names, as in --timm '*mobilenetv4*'"
    return f"; did you mean {' or '.join(map(repr, close))}?"
