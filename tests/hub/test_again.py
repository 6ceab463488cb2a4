"""`tlscale reproduce` and `tlscale runs` on what was published and what lies here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hub import kit
from tests.hub.conftest import PUBLISHED, Site


def test_a_publication_is_done_again_to_the_same_scores(site: Site, tmp_path: Path) -> None:
    data = [f"data.{role}.path={site.root / role}.jsonl" for role in ("train", "test")]
    out = str(tmp_path / "again")
    done = site.tlscale("reproduce", f"hub:{PUBLISHED}", *data, "-o", out, "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    assert {row["arm"] for row in told["scores"]} == {"base", "tuned"}
    assert max(abs(row["difference"]) for row in told["scores"]) < 1e-6
    plan = json.loads((tmp_path / "again" / "plan.json").read_text())
    assert plan["recipe"]["model"]["model_name_or_path"] == kit.BASE


def test_other_data_are_refused_before_training(site: Site, tmp_path: Path) -> None:
    other = kit.tiny.sentences(tmp_path / "other.jsonl", 64, seed=7)
    data = [f"data.train.path={other}", f"data.test.path={site.root / 'test.jsonl'}"]
    done = site.tlscale("reproduce", f"hub:{PUBLISHED}", *data, "-o", str(tmp_path / "run"), code=2)
    assert "is not the file of the original" in done.stderr
    assert not (tmp_path / "run").exists()
    done = site.tlscale("reproduce", "hub:ada/tiny-llama", code=5)
    assert "has no recipe.yaml" in done.stderr


def test_a_run_is_done_again_and_a_difference_is_an_error(site: Site, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(site.run, changed, symlinks=True)
    rows = [json.loads(line) for line in (changed / "measurements.jsonl").read_text().splitlines()]
    for row in rows:
        row["value"] += 0.25 * (row["arm"] == "tuned")
    (changed / "measurements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = site.tlscale("reproduce", str(changed), "-o", str(tmp_path / "again"), code=4)
    assert "differs by 0.25" in done.stderr
    assert "-2.50e-01" in done.stdout


def listed(site: Site, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(site.tlscale("runs", *arguments, "--json").stdout)
    return found


def test_runs_are_listed_filtered_and_know_their_ancestors(site: Site, tmp_path: Path) -> None:
    whole = tmp_path / "runs" / "whole"
    more = {"strategy": {"kind": "full"}, "name": "whole", "output_dir": str(whole)}
    site.tlscale("run", str(kit.recipe(tmp_path, **more)), "train.max_steps=4")
    model = {"model_name_or_path": str(whole / "adapter"), "task": "causal-lm"}
    child = {"model": model, "name": "child", "output_dir": str(tmp_path / "runs" / "child")}
    site.tlscale("run", str(kit.recipe(tmp_path, **child)), "train.max_steps=4")
    folders = ("runs", str(tmp_path / "runs"))
    names = [Path(one["path"]).name for one in listed(site, *folders)]
    assert names[0] == "child"
    assert {"child", "whole", "colours"} <= set(names)
    (one,) = listed(site, *folders, "--where", "name=child")
    assert one["lineage"] == [kit.BASE, str(whole)]
    assert one["facts"]["method"] == "lora"
    (one,) = listed(site, "runs", "--where", f"published~{PUBLISHED}", "--where", "target.nll<3")
    assert (one["verdict"], one["state"]) == ("POSITIVE", "done")
    table = site.tlscale("runs", *folders).stdout
    assert f"stands on {kit.BASE} > {whole}" in table
    assert "tlscale compare" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--where", "verdikt=POSITIVE"), "did you mean verdict?"),
        (("--where", "verdict"), "write NAME=VALUE"),
        (("--where", "seed>x"), "it is a number"),
        (("nowhere",), "no such folder"),
    ],
)
def test_what_cannot_be_listed(site: Site, arguments: tuple[str, ...], said: str) -> None:
    assert said in site.tlscale("runs", *arguments, code=2).stderr
