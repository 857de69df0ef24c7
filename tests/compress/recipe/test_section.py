from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import jsonschema
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from compress.recipe.renamed import RenamedKeyWarning
from compress.recipe.section import Config, other_name, reject_booleans
from runtimes.target import Target


@dataclass(frozen=True)
class Point:
    x: float = 0.0
    open: bool = False


class Section(Config):
    RENAMED: ClassVar[dict[str, str]] = {"engine": "method", "count": "images"}

    images: Annotated[int, Field(ge=1)]
    method: Literal["ours", "nncf"] = "ours"
    rate: float | None = None
    either: float | bool = 1.0
    sides: tuple[int, ...] = ()
    shares: dict[str, float] | None = None
    point: Point = Point()


def problems(content: dict[str, object]) -> list[tuple[str, ...]]:
    with pytest.raises(ValidationError) as caught:
        Section.model_validate(content)
    return [tuple(map(str, error["loc"])) for error in caught.value.errors()]


def test_a_section_is_frozen() -> None:
    section = Section(images=1)
    with pytest.raises(ValidationError, match="frozen"):
        section.images = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"images": 1, "imagse": 2}, ("imagse",)),
        ({"images": 1, "rate": float("nan")}, ("rate",)),
        ({"images": 1, "rate": float("inf")}, ("rate",)),
        ({"images": True}, ("images",)),
        ({"images": 1, "rate": True}, ("rate",)),
        ({"images": 1, "sides": [1, True]}, ("sides", "1")),
        ({"images": 1, "shares": {"a": False}}, ("shares", "a")),
        ({"images": 1, "point": {"x": True}}, ("point", "x")),
    ],
)
def test_wrong_content_is_refused_with_its_path(content: dict[str, object], path: tuple[str, ...]) -> None:
    assert problems(content) == [path]


def test_a_boolean_stays_where_the_type_has_one() -> None:
    section = Section.model_validate({"images": 1, "either": True, "point": {"open": True}})
    assert section.either is True
    assert section.point.open is True


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [(True, int, "true"), (False, float | None, "false"), (True, bool, True), (True, str, True), (3, int, 3),
     ([True, 2], tuple[int, ...], ["true", 2]), ({"a": True}, dict[str, float], {"a": "true"}),
     ({"x": True, "open": True}, Point, {"x": "true", "open": True})],
)  # fmt: skip
def test_reject_booleans(value: object, annotation: object, expected: object) -> None:
    assert reject_booleans(value, annotation) == expected


def test_an_old_key_sets_the_new_field_with_a_warning() -> None:
    with pytest.warns(RenamedKeyWarning, match="section: 'engine' is now called 'method'"):
        assert Section.model_validate({"images": 1, "engine": "nncf"}) == Section(images=1, method="nncf")


def test_the_value_of_an_old_key_is_validated() -> None:
    with pytest.warns(RenamedKeyWarning):
        assert problems({"images": 1, "engine": "none"}) == [("method",)]


def test_an_old_key_beside_the_new_one_is_refused() -> None:
    with pytest.raises(ValidationError, match="has both 'method' and its old name 'engine'"):
        Section.model_validate({"images": 1, "engine": "nncf", "method": "nncf"})


def test_the_old_name_is_not_written() -> None:
    with pytest.warns(RenamedKeyWarning):
        section = Section.model_validate({"count": 3})
    assert {"engine", "count"}.isdisjoint(section.model_dump())


def test_the_schema_accepts_old_and_new_keys_only() -> None:
    class Whole(Config):
        part: Section

    schema = TypeAdapter(Whole).json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    for part in ({"images": 1, "method": "nncf"}, {"images": 1, "engine": "nncf"}, {"count": 1}):
        assert validator.is_valid({"part": part})
    for part in ({"images": 1, "engine": "none"}, {"images": 1, "engin": "nncf"}):
        assert not validator.is_valid({"part": part})
    assert schema["$defs"]["Section"]["properties"]["engine"]["deprecated"] is True


class Whole(Config):
    part: Section | None = None
    parts: tuple[Section, ...] = ()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("part", "engine"), "method"),
        (("part", "method"), "engine"),
        (("parts", "0", "images"), "count"),
        (("part", "rate"), None),
        (("part",), None),
        (("engine",), None),
        (("no", "engine"), None),
    ],
)
def test_other_name(path: tuple[str, ...], expected: str | None) -> None:
    assert other_name(Whole, path) == expected


def test_a_section_needs_no_target_by_default() -> None:
    assert Section(images=1).measures_on((Target("here"),)) is None
