from __future__ import annotations

import warnings

import pytest

from compress.recipe.renamed import RenamedKeyWarning, rename


def test_an_old_key_is_replaced_with_a_warning_that_names_both() -> None:
    content = {"engine": "nncf", "images": 8}
    with pytest.warns(
        RenamedKeyWarning, match="^quantize: 'engine' is now called 'method'; the next version no longer"
    ):
        assert rename(content, {"engine": "method"}, "quantize") == {"method": "nncf", "images": 8}
    assert content == {"engine": "nncf", "images": 8}


def test_the_warning_is_a_deprecation_warning() -> None:
    assert issubclass(RenamedKeyWarning, DeprecationWarning)


def test_new_keys_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rename({"method": "nncf"}, {"engine": "method"}, "quantize") == {"method": "nncf"}


def test_both_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="has both 'method' and its old name 'engine'; remove 'engine'"):
        rename({"method": "nncf", "engine": "nncf"}, {"engine": "method"}, "quantize")
