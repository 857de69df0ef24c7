"""JSON Schema of recipes, in which every key has its description."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from compress.recipe import docstrings, own_code, plugins
from compress.recipe.recipe import Recipe
from runtimes.files import Json, JsonValue


class _DescribedSchema(GenerateJsonSchema):
    """Describes sections and their keys by the docstrings of their classes."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return _described(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        return _described(super().dataclass_schema(schema), schema["cls"])


def recipe_schema() -> Json:
    """Return the JSON Schema (2020-12) of a recipe."""
    schema = TypeAdapter(Recipe).json_schema(schema_generator=_DescribedSchema)
    schema["required"].remove("name")
    _allow_others(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _allow_others(node: JsonValue) -> None:
    """Add the plug-ins that are not built in to each choice of plug-ins, by their name only: none is imported."""
    if isinstance(node, dict) and "discriminator" in node:
        tag = node["discriminator"]["propertyName"]
        others: list[Json] = [{"const": name} for name in plugins.registered(tag)]
        if tag == plugins.TAG["models"]:
            others.append({"pattern": f"^{own_code.NAME.pattern}$"})
        node["oneOf"] += [{"type": "object", "properties": {tag: other}, "required": [tag]} for other in others]
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _allow_others(item)


def _described(schema: JsonSchemaValue, section: type[Any]) -> JsonSchemaValue:
    schema["description"] = docstrings.summary(section)
    texts = docstrings.descriptions(section)
    for key, content in schema["properties"].items():
        if key in texts:
            content["description"] = texts[key]
        elif "const" in content:
            content["description"] = f"selects {content['const']}."
    return schema
