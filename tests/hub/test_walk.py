"""docs/publishing.md, followed command by command, to the repository that it names."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tests.hub import kit
from tests.hub.conftest import Site
from tlscale.recipe.parse import parse_yaml

REPOSITORY = "ada/colours"
PAGE = (kit.ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")


def test_the_page_is_followed_to_its_end(site: Site) -> None:
    folder = site.root / "walk"
    folder.mkdir()
    kit.recipe(folder)
    (written,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    recipe = parse_yaml(written)
    assert recipe.pop("publish") == {"to": REPOSITORY, "private": True}
    (folder / "colours.yaml").write_text(json.dumps(recipe))
    said: dict[str, str] = {}
    commits = []
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        for line in block.strip().splitlines():
            program, *arguments = shlex.split(line)
            assert program == "tlscale"
            said[line] = site.tlscale(*arguments, cwd=folder).stdout
            made = REPOSITORY in site.hub.store.repositories
            commits.append(len(site.hub.store.log(REPOSITORY)) if made else 0)
    pushes = [n for n, line in enumerate(said) if "push" in line]
    assert commits[pushes[0] - 1] == 0
    assert commits[pushes[0]] == commits[-1] == 2, "the second push made a commit"
    assert "nothing to do" in said["tlscale push runs/colours --to ada/colours"]
    assert "verified" in said["tlscale verify hub:ada/colours"]
    (again,) = (text for line, text in said.items() if "reproduce" in line)
    assert "reproduced: no target score differs" in again
    listed = next(json.loads(text) for line, text in said.items() if line.endswith("--json"))
    assert [one["facts"]["name"] for one in listed] == ["colours"]


@pytest.mark.parametrize("number", ["0 published", "1 the Hub failed", "4 the verdict"])
def test_the_exit_codes_are_those_of_the_page(number: str) -> None:
    assert number in PAGE
