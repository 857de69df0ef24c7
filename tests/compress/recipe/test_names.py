"""The nearest known name."""

from __future__ import annotations

import pytest

from compress.recipe.names import near


@pytest.mark.parametrize(
    ("name", "end"), [("resnt", "; did you mean 'resnet'?"), ("vgg", "; choose from alexnet, resnet")]
)
def test_near(name: str, end: str) -> None:
    assert near(name, ["alexnet", "resnet"]) == end
