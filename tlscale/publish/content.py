"""What of a run may be published: an allowlist by name, and records without this machine in them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from tlscale.errors import TlscaleError, UsageError
from tlscale.planning.seal import fingerprint
from tlscale.planning.types import Plan
from tlscale.recipe.paths import BUILTIN
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.runs.record import read_lines, sha256, write_json, write_lines, write_text

PROBE = "probe.safetensors"
WEIGHTS = {
    "adapter": ("adapter_config.json", "adapter_model.safetensors", "head.json", "head.safetensors"),
    "adapters": ("head.json", "head.safetensors"),
    "head": ("head.json", "head.safetensors"),
    "checkpoint": (
        "config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors",
        "model.safetensors.index.json", "head.json", "head.safetensors",
    ),
}  # fmt: skip
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "chat_template.jinja", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
# What a tokenizer's config says of how it was loaded last.
INCIDENTAL = ("is_local", "local_files_only", "name_or_path", "transformers_version", "processor_class")
SHARED = (
    "version", "name", "seed", "model", "data", "strategy", "stages", "train", "hardware", "evaluate",
    "report",
)  # fmt: skip
PATHS = ("path", "chat_template", "where")
# The shapes of credentials that people have put into recipes before.
SECRETS = re.compile(
    r"hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16}|sk-[A-Za-z0-9_-]{20,}"
)
TEXTS = (".json", ".jsonl", ".yaml", ".md", ".txt", ".jinja")


@dataclass(frozen=True)
class Base:
    """The base as everybody finds it: its id on the Hub and the commit, `None` where it isn't there."""

    name: str
    commit: str | None


def copy_weights(source: Path, folder: Path, *, base_folder: Path | None) -> dict[str, Any]:
    """Copies what may go of the artifact in `source`, and returns its manifest.

    The tokenizer goes along where it differs from the base's; with a checkpoint always.

    Raises:
        UsageError: the artifact is of no known kind, or holds a file that is neither allowed nor its own.
    """
    manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    kind = manifest["kind"]
    if kind not in WEIGHTS or "attention" in manifest:
        how = " under attention" if "attention" in manifest else ""
        raise UsageError(f"{source}: results of kind {kind}{how} can't be published")
    files = [path for path in sorted(source.iterdir()) if path.is_file() and not path.is_symlink()]
    tokenizer = [path for path in files if path.name in TOKENIZER]
    # a part of a tokenizer is none: loaders that find one file of it expect the others
    own = kind == "checkpoint" or not all(_same(path, base_folder) for path in tokenizer)
    for path in files:
        wanted = any(fnmatchcase(path.name, pattern) for pattern in WEIGHTS[kind])
        if wanted or (own and path in tokenizer):
            shutil.copyfile(path, folder / path.name)
    for name in manifest.get("adapters", ()):
        (folder / name).mkdir()
        for file in WEIGHTS["adapter"][:2]:
            shutil.copyfile(source / name / file, folder / name / file)
    return manifest


def _same(path: Path, base_folder: Path | None) -> bool:
    """Whether the base has this file, in what matters."""
    theirs = None if base_folder is None else base_folder / path.name
    if theirs is None or not theirs.is_file():
        return False
    if path.suffix != ".json":
        return path.read_bytes() == theirs.read_bytes()
    ours, other = (json.loads(one.read_text(encoding="utf-8")) for one in (path, theirs))
    for value in (ours, other):
        for key in INCIDENTAL:
            value.pop(key, None)
    return bool(ours == other)


def name_the_base(folder: Path, manifest: Mapping[str, Any], base: Base) -> None:
    """Writes the manifest of the published files, and the Hub's name of the base into the config."""
    for config in sorted(folder.rglob("adapter_config.json")):
        said = json.loads(config.read_text(encoding="utf-8"))
        said |= {"base_model_name_or_path": base.name, "revision": base.commit}
        write_json(config, said)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    sealed = {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in files
    }
    write_json(folder / MANIFEST, {**manifest, "base": base.name, "revision": base.commit, "files": sealed})


def public_plan(plan: Plan, base: Base) -> Plan:
    """The plan as others may read it: the Hub's name of the base, and files by their names alone.

    Only what decides the result is kept of the recipe: where it ran and where it went is nobody's affair.
    """
    raw = json.loads(plan.model_dump_json())
    recipe = json.loads(plan.recipe.model_dump_json(exclude_defaults=True))
    recipe = {key: recipe[key] for key in SHARED if key in recipe}
    recipe["model"] |= {"model_name_or_path": base.name, "revision": base.commit}
    recipe["seed"] = plan.seed
    for key in ("against_runs", "predictor", "predictor_options"):
        recipe.get("evaluate", {}).pop(key, None)
    raw |= {"recipe": recipe, "notes": []}
    raw["facts"] |= {"model": base.name, "commit": base.commit, "folder": ""}
    made = Plan.model_validate_json(json.dumps(_nameless(raw)))
    return made.model_copy(update={"fingerprint": fingerprint(made)})


def _nameless(value: Any) -> Any:
    """`value` with every path in it cut to the file's name."""
    if isinstance(value, list):
        return [_nameless(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _name(one) if key in PATHS and isinstance(one, str) else _nameless(one)
        for key, one in value.items()
    }


def _name(path: str) -> str:
    return path if path.startswith(BUILTIN) else Path(path).name


def write_records(folder: Path, layout: RunLayout, plan: Plan, verdict: Mapping[str, Any] | None) -> None:
    """Plan, recipe, verdict and scores."""
    write_text(folder / "plan.json", plan.model_dump_json(indent=1) + "\n")
    recipe = plan.recipe.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
    write_text(folder / "recipe.yaml", text)
    if verdict is not None:
        write_json(folder / "verdict.json", {**verdict, "run": plan.recipe.name})
    write_lines(folder / "measurements.jsonl", latest(layout))


def latest(layout: RunLayout) -> list[dict[str, Any]]:
    """The latest measurement of each suite, metric and arm."""
    found = {(r["suite"], r["metric"], r["arm"]): r for r in read_lines(layout.measurements)}
    return list(found.values())


def check_clean(folder: Path, private: Iterable[str]) -> None:
    """Refuses files that hold a credential or a place on this machine.

    Args:
        private: Strings that must not be in them: tokens, home folders.

    Raises:
        TlscaleError: a file holds one; says which file, and never what.
    """
    hidden = [text for text in private if len(text) > 3]
    for path in sorted(folder.rglob("*")):
        if path.suffix not in TEXTS or not path.is_file() or path.name == "tokenizer.json":
            continue
        text = path.read_text(encoding="utf-8")
        if SECRETS.search(text) or any(secret in text for secret in hidden):
            raise TlscaleError(
                f"{path.name}: holds what looks like a credential or a path of this machine, and is not "
                "published; take it out of the recipe (names and templates of the data, chat template)"
            )
