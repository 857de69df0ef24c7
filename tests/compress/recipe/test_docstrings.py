"""Descriptions of keys in docstrings."""

from __future__ import annotations

from dataclasses import dataclass

from compress.recipe import docstrings
from compress.recipe.section import Config


class Base(Config):
    """Settings of a base.

    size: side
        in pixels: of all.
    rate: of the base.
    """

    size: int = 1
    rate: float = 0


class Derived(Base):
    """Settings.

    A note: it names no key.

    rate: own text.
    low, high: both ends.

    A last paragraph.
    """

    low: int = 0
    high: int = 1


@dataclass
class Plain:
    """One line; size: not at the start of a line."""

    size: int = 0


def test_a_text_ends_at_the_next_key_or_empty_line() -> None:
    assert docstrings.descriptions(Base) == {"size": "side in pixels: of all.", "rate": "of the base."}


def test_a_derived_section_has_the_texts_of_its_base_unless_it_has_its_own() -> None:
    assert docstrings.descriptions(Derived) == {
        "size": "side in pixels: of all.",
        "rate": "own text.",
        "low": "both ends.",
        "high": "both ends.",
    }


def test_the_summary_is_what_stands_before_the_first_key() -> None:
    assert docstrings.summary(Base) == "Settings of a base."
    assert docstrings.summary(Derived) == "Settings. A note: it names no key."
    assert docstrings.summary(Plain) == "One line; size: not at the start of a line."
    assert docstrings.descriptions(Plain) == {}
