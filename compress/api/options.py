"""The argument `preprocessing` of the Python API: a dict, a Preprocessing, or None for what follows from the file."""

from __future__ import annotations

from typing import TypeAlias

from compress.recipe.errors import validated
from compress.recipe.strict_yaml import Yaml
from export.inputs.options import NONE_GIVEN, USUAL_CHANNELS, PreprocessingOptions
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

PreprocessingArgument: TypeAlias = Yaml | Preprocessing | PreprocessingOptions | None


def options_of(preprocessing: PreprocessingArgument) -> PreprocessingOptions:
    """Return the settings that are given; raises InputError for unknown keys and wrong types."""
    if preprocessing is None:
        return NONE_GIVEN
    if isinstance(preprocessing, PreprocessingOptions):
        return preprocessing
    if isinstance(preprocessing, Preprocessing):
        return PreprocessingOptions.of(preprocessing)
    if not isinstance(preprocessing, dict):
        raise InputError(f"preprocessing: must be a dict or a Preprocessing, not {type(preprocessing).__name__}")
    try:
        return validated(PreprocessingOptions, _without_short_forms(preprocessing))
    except InputError as error:
        raise InputError("\n".join(f"preprocessing.{line}" for line in str(error).splitlines())) from None


def _without_short_forms(section: Yaml) -> Yaml:
    """Return a recipe's section with one number for all channels as a list, and channels by their name."""
    lists = {name: [section[name]] for name in ("mean", "std") if isinstance(section.get(name), (int, float))}
    channels = section.get("channels")
    names = {"channels": USUAL_CHANNELS[channels]} if isinstance(channels, int) and channels in USUAL_CHANNELS else {}
    return {**section, **lists, **names}
