"""Files that come from outside, looked at before anything loads them.

Nothing here imports, unpickles or follows what a file says: names come from an allowlist, sizes from the
listing, tensors from safetensors headers, and every field that later code would act on is checked first.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.errors import PlanError, VerificationError
from tlscale.planning.headers import Stored, read_header
from tlscale.publish import composed, texts
from tlscale.publish.content import TOKENIZER
from tlscale.runs.layout import MANIFEST

CARD, CARD_BYTES = "README.md", 1 << 20
TEXT_BYTES, TOKENIZER_BYTES, PROBE_BYTES, WEIGHT_BYTES = 8 << 20, 64 << 20, 256 << 20, 64 << 30
LIMITS = {
    "adapter_config.json": TEXT_BYTES, "adapter_model.safetensors": WEIGHT_BYTES, "head.json": TEXT_BYTES,
    "head.safetensors": WEIGHT_BYTES, MANIFEST: TEXT_BYTES, "probe.safetensors": PROBE_BYTES,
    "tlscale.json": TEXT_BYTES, "plan.json": 4 * TEXT_BYTES, "recipe.yaml": TEXT_BYTES,
    "measurements.jsonl": TEXT_BYTES, "config.json": TEXT_BYTES, "model.safetensors": WEIGHT_BYTES,
    "generation_config.json": TEXT_BYTES, CARD: CARD_BYTES, **dict.fromkeys(TOKENIZER, TOKENIZER_BYTES),
}  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npy", ".npz")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,200}")
PLACE = re.compile(r"^(~|/|\.{1,2}/|[A-Za-z]:\\|\\\\)|://|(^|/)\.\.(/|$)")
# A group that repeats and holds a repetition takes exponential time on a name that almost matches.
EXPONENTIAL = re.compile(r"\([^()]*[+*}][^()]*\)[+*{]")
DEEPEST, LONGEST_PATTERN, LARGEST_NUMBER = 20, 400, 1_000_000
DTYPES = ("float32", "bfloat16", "float16")
KINDS = ("adapter", "adapters", "head", "checkpoint")
# Fields by which PEFT would import a module or read another file.
CALLING = ("megatron_config", "prompt_tuning_init_state_dict_path", "adapters")
MAPPED = re.compile(r"transformers(\.\w+)*")


def wanted(listed: Mapping[str, int | None], repository: str) -> tuple[str, ...]:
    """The names to download of a repository's files and sizes: those that are known, and no others.

    Raises:
        VerificationError: it holds no weights in safetensors, or a file is larger than it can need to be.
    """
    pickled = sorted(n for n in listed if n.endswith(PICKLES) and "/" not in n)
    weights = [
        n for n in ("adapter_model.safetensors", "head.safetensors", "model.safetensors") if n in listed
    ]
    if not weights:
        named = f"; {', '.join(pickled[:3])} could run code when loaded and is not read" if pickled else ""
        raise VerificationError(f"{repository}: holds no adapter in safetensors{named}")
    inside = composed.nested(listed)
    for name, limit in {**LIMITS, **{n: LIMITS[n.partition("/")[2]] for n in inside}}.items():
        size = listed.get(name)
        if size is not None and size > limit:
            raise VerificationError(f"{repository}: {name} of {size:,} bytes is larger than any such file")
    return (*(name for name in LIMITS if name in listed), *inside)


def known_files(folder: Path, into: Path) -> Path:
    """Copies the plain files of `folder` whose names are known into a new folder, and returns that."""
    into.mkdir(parents=True)
    for name in LIMITS:
        path = folder / name
        if path.is_file() and not path.is_symlink():
            shutil.copyfile(path, into / name)
    for name, path in composed.below(folder).items():
        (into / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, into / name)
    return into


def check(folder: Path) -> None:
    """Looks at everything in `folder` that later code acts on.

    Raises:
        VerificationError: with every reason found.
    """
    problems = list(_problems(folder))
    if problems:
        raise VerificationError("\n".join(f"{folder.name}: {problem}" for problem in problems))


def _problems(folder: Path) -> Iterator[str]:
    sides = [1]
    for path in sorted((*folder.iterdir(), *composed.below(folder).values())):
        if path.is_dir() and not path.is_symlink() and composed.FOLDER.fullmatch(path.name):
            continue
        if path.is_symlink() or not path.is_file():
            yield f"{path.name}: not a plain file"
        elif path.name not in LIMITS:
            yield f"{path.name}: does not belong here"
        elif path.suffix == ".safetensors":
            try:
                sides += _sides(read_header(path).values())
            except PlanError as error:
                yield str(error).removeprefix(f"{folder}/")
                # what the config is measured by is not known, and one reason is enough
                sides.append(LARGEST_NUMBER)
    for config in (folder, *sorted({path.parent for path in composed.below(folder).values()})):
        yield from _config(config / "adapter_config.json", max(sides))
    yield from _manifest(folder / MANIFEST)
    yield from composed.problems(folder, read(folder / MANIFEST))
    yield from _head(folder / "head.json", max(sides))
    yield from _model(folder / "config.json", max(sides))
    yield from _texts(folder)


def _texts(folder: Path) -> Iterator[str]:
    """The card and what comes with a tokenizer; its vocabulary is data, which no reader acts on."""
    config = read(folder / "tokenizer_config.json")
    found = {
        CARD: texts.card_problems(_text(folder / CARD)),
        "chat_template.jinja": texts.template_problems(_text(folder / "chat_template.jinja")),
        "tokenizer_config.json": () if config is None else texts.tokenizer_problems(config),
    }
    for name, problems in found.items():
        for problem in problems:
            yield f"{name}: {problem}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _sides(stored: Iterable[Stored]) -> list[int]:
    return [side for tensor in stored for side in tensor.shape]


def read(path: Path) -> Any:
    """The content of a JSON file; `None` where there is none.

    Raises:
        VerificationError: it is too large, too deep or no JSON.
    """
    if not path.is_file():
        return None
    if path.stat().st_size > 4 * TEXT_BYTES:
        raise VerificationError(f"{path.name}: larger than any such file")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise VerificationError(
            f"{path.name}: can't be read as JSON: {type(error).__name__}: {error}"
        ) from error
    if _depth(value) > DEEPEST:
        raise VerificationError(f"{path.name}: nested deeper than {DEEPEST} levels")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is written twice")
    return found


def _depth(value: Any, level: int = 0) -> int:
    if level > DEEPEST or not isinstance(value, (dict, list)) or not value:
        return level
    parts = value.values() if isinstance(value, dict) else value
    return max(_depth(part, level + 1) for part in parts)


def _config(path: Path, largest: int) -> Iterator[str]:
    said = read(path)
    if said is None:
        return
    if not isinstance(said, dict) or not isinstance(said.get("peft_type"), str):
        yield f"{path.name}: not an adapter's config (it has no peft_type)"
        return
    base = said.get("base_model_name_or_path")
    if not isinstance(base, str) or not HUB_ID.fullmatch(base):
        yield f"{path.name}: base_model_name_or_path is {base!r:.80}, not an id on the Hub (ORG/NAME)"
    revision = said.get("revision")
    if revision is not None and not (isinstance(revision, str) and REVISION.fullmatch(revision)):
        yield f"{path.name}: revision is {revision!r:.80}, neither a commit nor a branch"
    for field in CALLING:
        if said.get(field):
            yield f"{path.name}: {field} would make PEFT read or import something else"
    yield from _mapping(path.name, said.get("auto_mapping"))
    rest = {
        key: value for key, value in said.items() if key not in ("base_model_name_or_path", "auto_mapping")
    }
    for where, value in leaves(rest):
        yield from _leaf(path.name, where, value, largest)


def _mapping(name: str, mapping: Any) -> Iterator[str]:
    if mapping is None:
        return
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if not isinstance(library, str) or not MAPPED.fullmatch(library):
        yield f"{name}: auto_mapping names the module {library!r:.80}; only transformers' own are loaded"


def _leaf(name: str, where: str, value: Any, largest: int) -> Iterator[str]:
    if isinstance(value, str):
        if PLACE.search(value):
            yield f"{name}: {where} names a place, {value!r:.80}, that an adapter has no business with"
        elif len(value) > LONGEST_PATTERN or EXPONENTIAL.search(value):
            yield f"{name}: {where} is a pattern that could take for ever, {value!r:.80}"
    elif (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) > max(largest, LARGEST_NUMBER)
    ):
        yield f"{name}: {where} is {value:,}, more than any tensor in the file has"
    elif where in ("r", "num_virtual_tokens") and isinstance(value, int) and value > largest:
        yield f"{name}: {where} is {value:,}, and no tensor in the file has a side so long"


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every key and every plain value of nested mappings and lists, with its path."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield f"{where}.{key}".lstrip("."), str(key)
            yield from leaves(one, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one, where)
    else:
        yield where, value


def _manifest(path: Path) -> Iterator[str]:
    said = read(path)
    if said is None:
        return
    if not isinstance(said, dict) or said.get("kind") not in KINDS:
        yield f"{path.name}: not the manifest of an artifact"
        return
    for field in ("compute_dtype", "stored_dtype"):
        if said.get(field) not in DTYPES:
            yield f"{path.name}: {field} is {said.get(field)!r:.60}; allowed: {', '.join(DTYPES)}"
    files = said.get("files")
    if not isinstance(files, dict) or not isinstance(said.get("initial"), dict):
        yield f"{path.name}: files and initial must be mappings"
        return
    for name in files:
        leaves_it = "/" in name or "\\" in name or name.startswith(".")
        if leaves_it and not composed.nested((name,)):
            yield f"{path.name}: vouches for {name!r:.80}, which leaves the folder"
    base = said.get("base")
    if said["kind"] != "checkpoint" and not (isinstance(base, str) and HUB_ID.fullmatch(base)):
        yield f"{path.name}: base is {base!r:.80}, not an id on the Hub (ORG/NAME)"
    labels = said.get("labels")
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        yield f"{path.name}: labels must be a list of names"


def _head(path: Path, largest: int) -> Iterator[str]:
    said = read(path)
    if said is None:
        return
    sizes = [said.get(field) if isinstance(said, dict) else None for field in ("features", "hidden")]
    if not all(isinstance(size, int) and 0 <= size <= largest for size in sizes):
        yield f"{path.name}: features and hidden are {sizes}, and the weights have no such sides"


def _model(path: Path, largest: int) -> Iterator[str]:
    said = read(path)
    if said is None:
        return
    if not isinstance(said, dict) or not isinstance(said.get("model_type"), str):
        yield f"{path.name}: not a model's config (it has no model_type)"
        return
    for field in ("auto_map", "trust_remote_code", "custom_pipelines"):
        if said.get(field):
            yield f"{path.name}: {field} asks for Python code from the repository, and none is run"
    for where, value in leaves(said):
        if isinstance(value, str) and where != "_name_or_path" and PLACE.search(value):
            yield f"{path.name}: {where} names a place, {value!r:.80}"
        elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > max(largest, 1 << 31):
            yield f"{path.name}: {where} is {value:,}, more than any model has"
