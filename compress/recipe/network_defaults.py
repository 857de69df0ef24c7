"""Defaults of a recipe that its network decides: the missing keys of `preprocessing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from compress.recipe import plugins
from compress.recipe.preprocessing import NAMES, usual_values
from compress.recipe.section import Config
from runtimes.errors import InputError
from runtimes.files import Json, JsonValue
from runtimes.preprocessing import MAX_SIDE, Channels, Preprocessing, Sides

IMAGENET = Preprocessing()  # with which torchvision's networks are trained


def complete(content: JsonValue) -> JsonValue:
    """Return the content of a recipe with all keys of `preprocessing`, and with the size of networks of a fixed size.

    Invalid sections stay as they are, for the validation to report.
    """
    if not isinstance(content, dict):
        return content
    given = content.get("preprocessing", {})
    if not isinstance(given, dict):
        return content
    preprocessing = completed(given, usual(content.get("model")))
    sides = _sides(preprocessing["crop"])
    result = {**content, "preprocessing": preprocessing}
    if sides is None:
        return result
    sized = {key: _with_size(content[key], sides) for key in ("model", "stages") if key in content}
    return {**result, **sized}


def usual(model: object) -> Preprocessing:
    """Return the preprocessing with which the network of a section `model` is trained, by default ImageNet's."""
    found: Preprocessing | None = _asked(model, "preprocessing")
    return found or IMAGENET


def has_fixed_size(model: object) -> bool:
    """Return whether the network of a section `model` is built for images of one size."""
    return bool(_asked(model, "has_fixed_size"))


def completed(given: Mapping[str, Any], usual: Preprocessing) -> Json:  # Any: the values of a section of a recipe
    """Return the section with the network's values for missing keys; without resize, the network's share is cropped."""
    crop = given.get("crop", usual.crop if isinstance(usual.crop, int) else list(usual.crop))
    sides = _sides(crop)
    share, channels = usual.resize / min(usual.height, usual.width), _channels(given.get("channels"))
    missing = {
        "resize": usual.resize if sides is None else min(round(share * min(sides)), MAX_SIDE),
        "crop": crop,
        "interpolation": usual.interpolation,
        "mean": list(usual_values(usual.mean, channels)),
        "std": list(usual_values(usual.std, channels)),
    }
    return {**missing, **given}


def _with_size(value: JsonValue, sides: Sides) -> JsonValue:
    """Return sections with `image_size` in each network of a fixed size: the recipe's own and those of teachers."""
    if isinstance(value, (list, tuple)):
        return [_with_size(item, sides) for item in value]
    if not isinstance(value, dict):
        return value
    if "arch" not in value:
        return {key: _with_size(item, sides) for key, item in value.items()}
    return {**value, "image_size": sides} if has_fixed_size(value) else value


def _asked(model: object, question: str) -> Any:  # Any: the answer of a plug-in's function
    """Return what a function of a network's plug-in says; None for an invalid section or a plug-in without it."""
    section = model.model_dump() if isinstance(model, Config) else model
    if not isinstance(section, dict) or not isinstance(section.get("arch"), str):
        return None
    try:
        family = plugins.load("models", section["arch"])
        answer: Callable[[Config], Any] | None = getattr(family, question, None)
        return answer(family.Config.model_validate(section)) if answer else None
    except (InputError, ValidationError):
        return None


def _channels(given: object) -> Channels:
    """Return the name of the channels that a recipe gives by name or number; RGB for none and for invalid ones."""
    known = (name for number, name in NAMES.items() if given == name or (given == number and given is not True))
    return next(known, "rgb")


def _sides(crop: object) -> Sides | None:
    """Return (height, width) of a crop as a recipe has it, None for an invalid one."""
    sides = crop if isinstance(crop, (list, tuple)) else (crop, crop)
    return (sides[0], sides[1]) if len(sides) == 2 and all(type(side) is int for side in sides) else None
