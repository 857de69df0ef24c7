"""The page of all keys."""

from __future__ import annotations

import re
from pathlib import Path

from compress.recipe import keys, reference

PAGE = Path(__file__).parents[3] / "recipes" / "KEYS.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == reference.markdown(), "run: make reference"


def test_every_section_is_a_heading_and_every_key_is_in_a_table() -> None:
    page = reference.markdown()
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert sorted(headings[1:]) == sorted(section.path for section in keys.sections() if section.path)
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert listed == {key.name for section in keys.sections() for key in section.keys}


def test_a_section_lists_only_the_keys_in_which_it_differs() -> None:
    distill = reference.markdown().partition("## stages.distill\n")[2].partition("\n## ")[0]
    assert "The keys are those of [stages.train](#stagestrain). These differ." in distill
    assert re.findall(r"^\| `(\w+)` \|", distill, re.MULTILINE) == ["lr", "teacher"]


def test_each_text_is_short_enough_for_a_table() -> None:
    assert max(len(key.text) for section in keys.sections() for key in section.keys) < 500
