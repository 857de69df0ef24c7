"""The argument `preprocessing`."""

from __future__ import annotations

from typing import Any

import pytest

from compress.api.options import options_of
from export.inputs.options import NONE_GIVEN, PreprocessingOptions
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing


def test_settings_are_a_dict_a_preprocessing_or_none() -> None:
    whole = Preprocessing(40, 32)
    assert options_of(None) is NONE_GIVEN
    assert options_of(whole) == PreprocessingOptions.of(whole)
    assert options_of(NONE_GIVEN) is NONE_GIVEN
    assert options_of({"crop": [48, 192], "mean": [0.5]}) == PreprocessingOptions(crop=(48, 192), mean=(0.5,))
    assert options_of({"channels": 1, "std": 0.25}) == PreprocessingOptions(std=(0.25,), channels="grey")


@pytest.mark.parametrize(("content", "message"), [
    ([32], "preprocessing: must be a dict or a Preprocessing, not list"),
    ({"crops": 32}, "preprocessing.crops: unknown key; did you mean 'crop'?"),
    ({"mean": "grey"}, "preprocessing.mean: must be a list"),
    ({"interpolation": "cubic"}, "preprocessing.interpolation: must be 'nearest', 'bilinear', 'bicubic' or 'lanczos'"),
])  # fmt: skip
def test_a_wrong_setting_is_named_with_its_section(content: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        options_of(content)
    assert str(error.value).startswith(message)
