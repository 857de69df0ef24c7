"""The argument `preprocessing` of the Python API: a dict, a Preprocessing, or None for what follows from the file."""

from __future__ import annotations

from typing import TypeAlias

from compress.recipe.errors import validated
from compress.recipe.strict_yaml import Yaml
from export.inputs.options import NONE_GIVEN, PreprocessingOptions
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
    try:
        return validated(PreprocessingOptions, preprocessing)
    except InputError as error:
        raise InputError("\n".join(f"preprocessing.{line}" for line in str(error).splitlines())) from None
