"""Lines about invalid sections, from small models that have one problem each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from compress.recipe import errors
from compress.recipe.section import Config


@dataclass(frozen=True)
class Size:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    width: int
    height: int = 1

    def __post_init__(self) -> None:
        if self.width < self.height:
            raise ValueError(f"must have a width of at least {self.height}, not {self.width}")


class Cat(Config):
    arch: Literal["cat"] = "cat"
    lives: Annotated[int, Field(ge=1, le=9)] = 9


class Dog(Config):
    arch: Literal["dog"] = "dog"
    tricks: tuple[str, ...] = ()


class Zoo(Config):
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "zoo"
    pet: Annotated[Cat | Dog, Field(discriminator="arch")] = Cat()
    size: Size | None = None
    batch: int | Literal["dynamic"] = "dynamic"
    shares: dict[str, float] | None = None
    rooms: Annotated[tuple[Size, ...], Field(min_length=1)] = (Size(1),)


def problems(content: Any, root: type = Zoo) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(root).validate_python(content)
    return errors.lines(caught.value, root, content)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"nmae": "a"}, "nmae: unknown key; did you mean 'name'?"),
        ({"zzz": "a"}, "zzz: unknown key; choose from batch, name, pet, rooms, shares, size"),
        ({"size": {"widht": 3, "width": 3}}, "size.widht: unknown key; did you mean 'width'?"),
        ({"size": {}}, "size.width: is required"),
        ({"size": {"width": 0}}, "size: must have a width of at least 1, not 0"),
        ({"size": 5}, "size: must be a mapping, {key: value, …}, not 5"),
        ({"pet": {"arch": "cta"}}, "pet.arch: there is no 'cta'; did you mean 'cat'?"),
        ({"pet": {"arch": "fish"}}, "pet.arch: there is no 'fish'; choose from cat, dog"),
        ({"pet": {"lives": 3}}, "pet: needs the key 'arch'"),
        ({"pet": {"arch": "cat", "lives": 10}}, "pet.lives: must be less than or equal to 9, not 10"),
        ({"pet": {"arch": "dog", "tricks": "sit"}}, 'pet.tricks: must be a list, not "sit"'),
        ({"pet": {"arch": "dog", "lives": 3}}, "pet.lives: unknown key; choose from arch, tricks"),
        (
            {"batch": "many"},
            "batch: must be a valid integer, unable to parse string as an integer or 'dynamic', not \"many\"",
        ),
        ({"shares": {"a.b": "x"}}, 'shares.a.b: must be a valid number, unable to parse string as a number, not "x"'),
        ({"rooms": []}, "rooms: must have at least one item"),
        ({"rooms": [{"width": 2}, {"width": 0}]}, "rooms.1: must have a width of at least 1, not 0"),
        (
            {"name": "A B"},
            "name: must consist of letters, digits, '-', '_' and '.', and begin with a letter or digit, not \"A B\"",
        ),
    ],
)
def test_a_problem_is_one_line_with_its_path(content: dict[str, Any], line: str) -> None:
    assert problems(content) == [line]


def test_an_invalid_item_is_not_reported_as_a_missing_one() -> None:
    assert problems({"rooms": ["x"]}) == ['rooms.0: must be a mapping, {key: value, …}, not "x"']


def test_the_root_may_be_a_dataclass() -> None:
    assert problems({"width": "x", "zzz": 2}, Size) == [
        'width: must be a valid integer, unable to parse string as an integer, not "x"',
        "zzz: unknown key; choose from height, width",
    ]


def test_at_most_twenty_lines_and_the_number_of_the_rest() -> None:
    lines = problems({f"key{index}": 1 for index in range(25)})
    assert len(lines) == errors.MAX_LINES + 1
    assert lines[-1] == "and 5 more"
