"""ImageNet's synsets and readable names."""

from __future__ import annotations

from compress.images import synsets


def test_synsets_get_names() -> None:
    assert synsets.class_names(("n01440764",)) == ("n01440764 tench",)
    assert synsets.class_names(("cat",)) == ("cat",)


def test_the_synsets_are_in_the_order_of_a_networks_outputs() -> None:
    names = synsets.imagenet_synsets()
    assert len(names) == 1000
    assert names == sorted(names)
