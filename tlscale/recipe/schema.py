"""The JSON Schema of recipes, for editors and other programs."""

from __future__ import annotations

from typing import Any

from tlscale import plugins
from tlscale.recipe.launch import Launch
from tlscale.recipe.load import options_type
from tlscale.recipe.types import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """The schema of a whole recipe, with the options of every strategy that can be loaded."""
    schema = Recipe.model_json_schema()
    choices: dict[str, Any] = {"oneOf": list(strategy_schemas())}
    schema["$defs"]["Strategy"] = choices
    reference = {"$ref": "#/$defs/Strategy"}
    schema["properties"]["strategy"] = {**reference, "description": "kind, and the options of that kind."}
    schema["$defs"]["StageRecipe"]["properties"]["strategy"] = reference
    train = {**schema["$defs"]["Train"], "description": "Settings of train that differ in this stage."}
    schema["$defs"]["StageRecipe"]["properties"]["train"] = train
    launch = Launch.model_json_schema(ref_template="#/$defs/{model}")
    schema["$defs"] |= {**launch.pop("$defs"), "Launch": launch}
    about = {"description": schema["properties"]["launch"]["description"], "default": None}
    schema["properties"]["launch"] = {"anyOf": [{"$ref": "#/$defs/Launch"}, {"type": "null"}], **about}
    return {"$schema": DIALECT, **schema, "title": "tlscale recipe"}


def strategy_schemas() -> tuple[dict[str, Any], ...]:
    """One closed object schema for every strategy, or variant of one."""
    made = []
    for kind in plugins.names("tlscale.strategies"):
        strategy = plugins.load("tlscale.strategies", kind)
        for variant in strategy.variants() if strategy.refine else ({},):
            options = options_type({"kind": kind, **variant}).model_json_schema()
            title = " ".join([kind, *map(str, variant.values())])
            options["properties"] = {"kind": {"const": kind}, **options.get("properties", {})}
            options["required"] = ["kind", *options.get("required", [])]
            options["title"] = title
            options.setdefault("description", strategy.summary)
            made.append(_inlined(options))
    return tuple(made)


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its own `$defs` written in place, so that it can stand inside another."""
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inline(definitions[value["$ref"].rpartition("/")[2]])
            return {key: inline(part) for key, part in value.items()}
        return [inline(part) for part in value] if isinstance(value, list) else value

    result: dict[str, Any] = inline(schema)
    return result
