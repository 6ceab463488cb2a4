"""Every recipe printed in the documentation passes the check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tlscale.errors import Problem, RecipeError
from tlscale.recipe.load import check
from tlscale.recipe.parse import parse_yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS: list[Any] = [
    pytest.param(block, id=f"{page.name}-{index}")
    for page in PAGES
    for index, block in enumerate(
        re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
]


def test_there_are_some() -> None:
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("block", BLOCKS)
def test_is_a_recipe(block: str) -> None:
    assert [p for p in problems(block) if "no such file" not in p.message] == []


def problems(block: str) -> tuple[Problem, ...]:
    try:
        check(parse_yaml(block), source="docs")
    except RecipeError as error:
        return error.problems
    return ()
