"""Writes the reference of recipes from their schema.

python tools/reference.py            rewrites docs/reference.md
python tools/reference.py --check    exits 1 when the file isn't what the schema says
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.recipe.schema import recipe_schema

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
ANCHOR = re.compile(r"</?a\b[^>]*>")
SECTIONS = {
    "Model": "model",
    "ImageProcessor": "model.image_processor",
    "Data": "data",
    "Masking": "data.masking",
    "Augmentation": "data.augmentation",
    "Source": "data.train and the other rows of data",
    "Train": "train",
    "Averaging": "train.averaging",
    "Curriculum": "train.curriculum",
    "Importance": "train.importance",
    "MultiTask": "train.multi_task",
    "Objective": "train.objective",
    "L2Sp": "train.objective.l2_sp",
    "Ewc": "train.objective.ewc",
    "KlToBase": "train.objective.kl_to_base",
    "OLora": "train.objective.o_lora",
    "RDrop": "train.objective.rdrop",
    "Replay": "train.objective.replay",
    "Choices": "train.objective.choices",
    "Pet": "train.objective.pet",
    "Alignment": "train.objective.coral, train.objective.mmd",
    "Adversarial": "train.objective.dann, train.objective.cdan",
    "Mcc": "train.objective.mcc",
    "Hardware": "hardware",
    "Evaluate": "evaluate",
    "Report": "report",
    "Publish": "publish",
    "StageRecipe": "stages",
    "Launch": "launch",
    "Slurm": "launch.slurm",
    "Sweep": "sweep",
    "Space": "sweep.parameters.NAME",
}
INTRODUCTION = """\
# Reference of recipes

Every key of a recipe and every option of a strategy. Written by `python tools/reference.py` from the schema
that `tlscale schema` prints; what a key is for is best seen in [recipes.md](recipes.md).

A key without a default must be given. Any key can be set on the command line by its path:
`tlscale run RECIPE train.learning_rate=1e-4`.
"""
Schema = Mapping[str, Any]


def page(schema: Schema) -> str:
    """The whole reference as Markdown."""
    definitions = schema["$defs"]
    missing = set(definitions) - {*SECTIONS, "JsonValue", "Strategy"}
    assert not missing, f"name {sorted(missing)} in SECTIONS"
    blocks = [INTRODUCTION, "## The recipe\n\n" + table(schema)]
    for name, path in SECTIONS.items():
        about = definitions[name].get("description", "").partition("\n\n")[0]
        blocks.append(f"## `{path}`\n\n{line(about)}\n\n{table(definitions[name])}")
    blocks.append("## `strategy`\n\nIts `kind` decides which options it has.\n")
    blocks += list(strategies(definitions["Strategy"]["oneOf"]))
    return "\n".join(blocks)


def strategies(choices: list[Schema]) -> Iterator[str]:
    """One section for each strategy, or variant of one."""
    for choice in choices:
        properties = choice["properties"]
        fixed = {name: properties[name]["const"] for name in ("kind", "method") if name in properties}
        heading = ", ".join(f"{name}: {value}" for name, value in fixed.items())
        about = line(choice.get("description", ""))
        rest = {name: value for name, value in properties.items() if name not in fixed}
        yield f"### `{heading}`\n" + (f"\n{about}\n" if about else "")
        if rest:
            yield table({**choice, "properties": rest}, "PEFT's own" if "method" in fixed else "none")


def table(schema: Schema, unset: str = "none") -> str:
    """Key, type, default and description of each property; `unset` stands for a default of null."""
    rows = ["| key | type | default | |", "|---|---|---|---|", *lines(schema, unset)]
    return "\n".join(rows) + "\n"


def lines(schema: Schema, unset: str, above: str = "") -> Iterator[str]:
    """A table row for each property, and below a list of mappings for each of theirs."""
    required = schema.get("required", ())
    for name, about in schema["properties"].items():
        default = "" if name in required else shown(about, unset)
        text = line(ANCHOR.sub("", about.get("description", "")))
        yield f"| `{above}{name}` | {cell(kind(about))} | {default} | {cell(text)} |"
        items = about.get("items", {})
        if "properties" in items:
            yield from lines(items, unset, f"{above}{name}[].")


def shown(about: Schema, unset: str) -> str:
    """The default, where the schema knows one."""
    if "$ref" in about:
        return "or `stages`" if about["$ref"].endswith("/Strategy") else "all of its defaults"
    value = about.get("default")
    return unset if value is None else f"`{cell(json.dumps(value))}`"


def kind(about: Schema) -> str:
    """A property's type in words, with its limits."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return "mapping, see " + SECTIONS.get(name, "strategy").partition(",")[0]
    if "const" in about:
        return json.dumps(about["const"])
    if "enum" in about:
        return ", ".join(json.dumps(value) for value in about["enum"])
    if "anyOf" in about:
        parts = [kind(part) for part in about["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts)) or "null"
    if about.get("type") == "array":
        items = about.get("prefixItems")
        if items:
            return "[" + ", ".join(kind(item) for item in items) + "]"
        return (
            f"list of {kind(about['items']).replace('mapping, see ', '')}" if about.get("items") else "list"
        )
    if about.get("type") == "object":
        return "mapping"
    return " ".join([about.get("type", "any"), *limits(about)])


def limits(about: Schema) -> Iterator[str]:
    """The bounds of a number or the pattern of a string."""
    for name, sign in (
        ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"),
    ):  # fmt: skip
        if name in about:
            yield f"{sign} {about[name]:g}"
    if "pattern" in about:
        yield f"`{about['pattern']}`"


def line(text: str) -> str:
    """`text` on one line."""
    return " ".join(text.split())


def cell(text: str) -> str:
    """`text` as it can stand in a table."""
    return text.replace("|", r"\|").replace("<", "&lt;") if "`" not in text else text.replace("|", r"\|")


def main() -> int:
    text = page(recipe_schema())
    if "--check" in sys.argv:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
