"""The JSON Schema of recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from compress.recipe import plugins, shipped
from compress.recipe.json_schema import recipe_schema
from compress.recipe.recipe import Recipe

SHIPPED = list(shipped.recipes().values())


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [reference for value in node.values() for reference in references(value)]
    return [reference for value in node for reference in references(value)] if isinstance(node, list) else []


def test_the_schema_describes_every_section_and_plug_in() -> None:
    schema = json.loads(json.dumps(recipe_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(schema["properties"]) == list(Recipe.model_fields)
    assert sorted(schema["required"]) == ["data", "model"]
    assert schema["additionalProperties"] is False
    for section, kind in (("data", "data"), ("model", "models")):
        assert sorted(schema["properties"][section]["discriminator"]["mapping"]) == plugins.names(kind)  # type: ignore[arg-type]
    assert references(schema["properties"]["stages"])
    all_references = references(schema)
    assert len(all_references) >= 10
    assert {name.removeprefix("#/$defs/") for name in all_references} <= set(schema["$defs"])
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values() if part["type"] == "object")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_schema_accepts_the_shipped_recipes(path: Path) -> None:
    jsonschema.Draft202012Validator(recipe_schema()).validate(yaml.safe_load(path.read_text()))


def test_every_section_and_key_is_described() -> None:
    schema = recipe_schema()
    sections = {"recipe": schema, **schema["$defs"]}
    assert [name for name, section in sections.items() if not section["description"].strip()] == []
    keys = {
        f"{name}.{key}": content for name, section in sections.items() for key, content in section["properties"].items()
    }
    assert len(keys) > 200
    assert [name for name, content in keys.items() if not content.get("description", "").strip(" .")] == []


def test_an_old_key_has_the_text_of_the_new_one() -> None:
    gate = recipe_schema()["$defs"]["Gate"]["properties"]
    assert gate["max_top1_drop_pp"] == {**gate["max_drop_pp"], "deprecated": True}


def test_the_schema_accepts_networks_that_are_not_built_in(package: Callable[..., None]) -> None:
    package({}, {"compress.models": {"acme": "not_imported"}})
    schema = recipe_schema()
    for arch, valid in (("my_net:build", True), ("acme", True), ("my_net", False), ("a:b:c", False)):
        content = {"data": {"name": "elpv"}, "model": {"arch": arch, "width": 3}}
        assert jsonschema.Draft202012Validator(schema).is_valid(content) == valid, arch
