"""Bad input of every kind against the command line: what is done, what must be said, what may be left.

`python -m tests.integration.bad_inputs` runs the campaign and prints it as a table.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.integration import tiny
from tests.integration.warm import Warm
from tlscale.cli import main as command_line
from tlscale.planning.seal import fingerprint
from tlscale.planning.types import Plan

LORA = {"kind": "peft", "method": "lora", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
# What a run that fails leaves behind, so that it can be looked into and gone on with.
TRIED = ("runs", "runs/*")
Setup = Callable[[Path], None]


@dataclass(frozen=True)
class World:
    """Models, rows and a finished run, made once; `python` starts workers without the wait."""

    root: Path
    python: Path

    @property
    def run(self) -> Path:
        return self.root / "runs" / "tiny"


@dataclass(frozen=True)
class Case:
    """One bad input.

    `recipe` is laid over the recipe, `files` and `made` prepare the folder; then `command` is given. It
    must end with `code` and say all of `said`, the first of them once. What comes to be must fit `leaves`.
    `worker` where one is started, `limit` is the largest file that may be written, `environment` is added.
    """

    name: str
    command: str
    code: int
    said: tuple[str, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    made: Setup | None = None
    leaves: tuple[str, ...] = ()
    worker: bool = False
    limit: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what was in the folder before and after: names to digests."""

    code: int
    out: str
    err: str
    before: Mapping[str, str]
    after: Mapping[str, str]

    @property
    def came(self) -> list[str]:
        return sorted(self.after.keys() - self.before.keys())

    @property
    def changed(self) -> list[str]:
        return sorted(n for n, digest in self.before.items() if self.after.get(n) != digest)


def recipe_of(world: World, root: Path) -> dict[str, Any]:
    """A recipe that works: a tiny language model, a few rows, six steps."""
    return {
        "version": 1,
        "name": "tiny",
        "output_dir": "runs/tiny",
        "model": {"model_name_or_path": str(world.root / "llama"), "task": "causal-lm"},
        "data": {
            "train": {"path": "rows.jsonl", "prompt": "prompt", "completion": "completion"},
            "test_split": 0.25,
            "max_length": 32,
        },
        "strategy": dict(LORA),
        "train": {"max_steps": 6, "train_batch_size": 8, "learning_rate": 1e-2, "save_steps": 2},
        "hardware": {"device": "cpu"},
    }


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(made.get(key), Mapping)
        made[key] = laid_over(made[key], value) if both else value
    return {key: value for key, value in made.items() if value is not None}


def build(root: Path, python: Path) -> World:
    """The world in `root`."""
    root.mkdir()
    world = World(root, python)
    tiny.llama(root / "llama")
    tiny.bert(root / "bert")
    tiny.sentences(root / "rows.jsonl", 24)
    (root / "recipe.yaml").write_text(json.dumps(recipe_of(world, root)))
    outcome = started(world, root, ["run", "recipe.yaml"])
    assert outcome.returncode == 0, outcome.stderr
    return world


def started(
    world: World, root: Path, arguments: list[str], *, limit: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, to its end."""
    return subprocess.run(
        [str(world.python), "-m", "tlscale", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=None if limit is None else lambda: limited(limit),
        check=False,
    )


def limited(most: int) -> None:
    """No file of this process and of those it starts grows beyond `most` bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def listing(root: Path) -> dict[str, str]:
    """Every file and folder below `root` by relative name, with a digest of its content."""
    found = {}
    for path in sorted(root.rglob("*")):
        content = str(path.readlink()).encode() if path.is_symlink() else b""
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = hashlib.sha256(content).hexdigest()
    return found


def attempt(case: Case, world: World, root: Path) -> Outcome:
    """Prepares the folder `root` and gives the command in it."""
    shutil.copy(world.root / "rows.jsonl", root)
    (root / "recipe.yaml").write_text(json.dumps(laid_over(recipe_of(world, root), case.recipe)))
    for name, content in case.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    if case.made is not None:
        with chdir(root):
            case.made(world.root)
    before = listing(root)
    arguments = shlex.split(case.command)
    if case.worker:
        done = started(world, root, arguments, limit=case.limit, **case.environment)
        return Outcome(done.returncode, done.stdout, done.stderr, before, listing(root))
    with chdir(root), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = command_line(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue(), before, listing(root))


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What is not as it must be."""
    text = outcome.out + outcome.err
    found = []
    if outcome.code != case.code:
        found.append(f"exit code {outcome.code}, not {case.code}")
    found += [f"not said: {part}" for part in case.said if part not in text]
    if text.count(case.said[0]) > 1:
        found.append(f"said {text.count(case.said[0])} times: {case.said[0]}")
    if "Traceback" in text:
        found.append("a traceback")
    if not text.strip():
        found.append("not a word")
    strange = [n for n in outcome.came if not any(fnmatch(n, pattern) for pattern in case.leaves)]
    found += [f"left behind: {', '.join(strange)}"] if strange else []
    changed = [n for n in outcome.changed if not any(fnmatch(n, pattern) for pattern in case.leaves)]
    found += [f"changed: {', '.join(changed)}"] if changed else []
    halves = [n for n in outcome.after if ".partial" in n]
    found += [f"half-written: {', '.join(halves)}"] if halves else []
    if case.code in (1, 2) and any(n.endswith(("DONE", "verdict.json")) for n in outcome.came):
        found.append("marked as done")
    return found


# How folders get bad.


def model(*changes: Callable[[Path], None]) -> Setup:
    """A copy of the language model in `model`, changed."""

    def make(world: Path) -> None:
        shutil.copytree(world / "llama", "model")
        for change in changes:
            change(Path("model"))

    return make


def without(*names: str) -> Setup:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def holding(name: str, content: bytes) -> Setup:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str, share: float) -> Setup:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return change


def header(name: str, change: Callable[[dict[str, Any]], None]) -> Setup:
    """Changes what a safetensors file says of its tensors, not the tensors."""

    def rewrite(folder: Path) -> None:
        content = (folder / name).read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        said = json.loads(content[8 : 8 + length])
        change(said)
        text = json.dumps(said).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return rewrite


def flipped(name: str) -> Setup:
    """One bit of the last number in a file."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-2] ^= 0x10
        (folder / name).write_bytes(bytes(content))

    return change


def field_of(name: str, **fields: Any) -> Setup:
    """Sets fields of a JSON file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **fields}))

    return change


def run(*changes: Callable[[Path], None]) -> Setup:
    """A copy of the finished run in `runs/tiny`, changed."""

    def make(world: Path) -> None:
        shutil.copytree(world / "runs" / "tiny", "runs/tiny", symlinks=True)
        for change in changes:
            change(Path("runs/tiny"))

    return make


def unfinished(folder: Path) -> None:
    """As a run is before its first stage is done."""
    for name in ("DONE", "adapter", "result.json", "verdict.json", "report.html", "report.md"):
        (folder / name).unlink()
    shutil.rmtree(folder / "stages")
    rows = (folder / "measurements.jsonl").read_text().splitlines(keepends=True)
    (folder / "measurements.jsonl").write_text("".join(r for r in rows if json.loads(r)["arm"] == "base"))


def gone(name: str) -> Setup:
    def change(folder: Path) -> None:
        target = folder / name
        shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()

    return change


def lies_about_shape(said: dict[str, Any]) -> None:
    next(entry for name, entry in said.items() if name != "__metadata__")["shape"][0] += 1


def lies_about_place(said: dict[str, Any]) -> None:
    next(entry for name, entry in said.items() if name != "__metadata__")["data_offsets"][1] += 4


def other_vocabulary(said: dict[str, Any]) -> None:
    said["model.renamed.weight"] = said.pop("model.norm.weight")


WEIGHTS = "model.safetensors"


def moved_base(world: Path) -> None:
    """A run whose base model is another by now."""
    run()(world)
    shutil.copytree(world / "llama", "model")
    flip = Path("model") / WEIGHTS
    content = bytearray(flip.read_bytes())
    content[-2000:] = content[-4000:-2000]
    flip.write_bytes(bytes(content))
    path = Path("runs/tiny/plan.json")
    text = path.read_text().replace(str(world / "llama"), str(Path("model").resolve()))
    plan = Plan.model_validate_json(text)
    path.write_text(plan.model_copy(update={"fingerprint": fingerprint(plan)}).model_dump_json())


REMOTE = {"auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
CODE = b"open('ran', 'w').write('code of a stranger')\n"
CSV = b"text,label\n" + b"".join(b"row %d,c%d\n" % (i, i % 2) for i in range(20))
LABELLED = {
    "model": {"task": "sequence-classification"},
    "data": {
        "train": {"path": "t.csv", "prompt": None, "completion": None, "text": "text", "label": "label"}
    },
}
SORT = {
    **LABELLED,
    "strategy": {"kind": "features", "method": None, "r": None, "lora_alpha": None, "target_modules": None},
}
MODEL = "model.model_name_or_path=./model"

RECIPES = [
    Case("unknown command", "chek recipe.yaml", 2, ("invalid choice: 'chek'",)),
    Case("unknown option", "run recipe.yaml --ofline", 2, ("--ofline",)),
    Case("no recipe named", "run", 2, ("required: RECIPE",)),
    Case("missing recipe", "run recipy.yaml", 2, ("did you mean recipe.yaml?",)),
    Case("recipe is a folder", "run .", 2, ("a folder; name the recipe file",)),
    Case("recipe is no YAML", "run r.yaml", 2, ("r.yaml", "line 2"), files={"r.yaml": b"a: 1\nb: [1, 2\n"}),
    Case("recipe is a list", "run r.yaml", 2, ("a recipe is a mapping",), files={"r.yaml": b"- a\n- b\n"}),
    Case("recipe is empty", "run r.yaml", 2, ("a recipe is a mapping",), files={"r.yaml": b""}),
    Case(
        "recipe is not UTF-8",
        "run r.yaml",
        2,
        ("r.yaml: not UTF-8 text (byte 6)",),
        files={"r.yaml": b"name: \xff\n"},
    ),
    Case(
        "recipe makes an object",
        "run r.yaml",
        2,
        ("r.yaml",),
        files={"r.yaml": b"name: !!python/object/apply:os.mkdir [ran]\n"},
    ),
    Case("recipe says a key twice", "run r.yaml", 2, ("twice",), files={"r.yaml": b"name: a\nname: b\n"}),
    Case("misspelt section", "run recipe.yaml", 2, ("did you mean train?",), recipe={"trian": {}}),
    Case(
        "misspelt nested key",
        "run recipe.yaml",
        2,
        ("train.lerning_rate", "did you mean learning_rate?"),
        recipe={"train": {"lerning_rate": 1}},
    ),
    Case(
        "misspelt key, four deep",
        "run recipe.yaml",
        2,
        ("data.train.colum",),
        recipe={"data": {"train": {"colum": "x"}}},
    ),
    Case(
        "misspelt option of a strategy",
        "run recipe.yaml",
        2,
        ("did you mean target_modules?",),
        recipe={"strategy": {"target_moduls": "all-linear"}},
    ),
    Case(
        "misspelt key of a stage",
        "run recipe.yaml",
        2,
        ("stages.0.train.max_step", "did you mean max_steps?"),
        recipe={"strategy": None, "stages": [{"name": "a", "strategy": LORA, "train": {"max_step": 1}}]},
    ),
    Case(
        "misspelt strategy",
        "run recipe.yaml",
        2,
        ("did you mean peft?",),
        recipe={"strategy": {"kind": "pfet"}},
    ),
    Case(
        "misspelt override",
        "run recipe.yaml train.lerning_rate=1",
        2,
        ("did you mean learning_rate? (command line)",),
    ),
    Case(
        "misspelt section in override", "run recipe.yaml trian.learning_rate=1", 2, ("did you mean train?",)
    ),
    Case("override without a value", "run recipe.yaml train.learning_rate", 2, ("train.learning_rate",)),
    Case("override into a value", "run recipe.yaml name.first=x", 2, ("name is a value, it has no keys",)),
    Case("override twice", "run recipe.yaml seed=1 seed=2", 2, ("given twice",)),
    Case("words for a number", "run recipe.yaml train.max_steps=many", 2, ("train.max_steps", "many")),
    Case("a negative rate", "run recipe.yaml train.learning_rate=-1", 2, ("train.learning_rate",)),
    Case("a number for a list", "run recipe.yaml seeds=3", 2, ("seeds",)),
    Case("a name for a section", "run recipe.yaml strategy=lora", 2, ("strategy",)),
    Case("a path for a source", "run recipe.yaml data.train=rows.jsonl", 2, ("data.train",)),
    Case("NaN for a number", "run recipe.yaml train.learning_rate=.nan", 2, ("train.learning_rate",)),
    Case("a boolean for a number", "run recipe.yaml train.max_steps=true", 2, ("train.max_steps",)),
    Case(
        "strategy and stages",
        "run recipe.yaml",
        2,
        ("exactly one of strategy and stages",),
        recipe={"stages": [{"name": "a", "strategy": LORA}]},
    ),
    Case("unset variable", "run recipe.yaml data.train.path=${NOWHERE}/a.csv", 2, ("NOWHERE is not set",)),
    Case(
        "a secret in a path",
        "run recipe.yaml data.train.path=${HF_TOKEN}/a.csv",
        2,
        ("looks like a secret",),
    ),
    Case("code without a commit", "run recipe.yaml model.trust_remote_code=true", 2, ("40-digit commit",)),
    Case(
        "every problem at once",
        "run recipe.yaml seeds=3 nam=x",
        2,
        ("3 problems in recipe.yaml",),
        recipe={"train": {"lerning_rate": 1}},
    ),
    Case("target modules match nothing", "run recipe.yaml strategy.target_modules=[query]", 2, ("query",)),
    Case(
        "a pattern that matches nothing",
        "run recipe.yaml strategy.target_modules=attention.*",
        2,
        ("attention.*",),
    ),
    Case(
        "rules that cover not all",
        "run recipe.yaml",
        2,
        ("no rule",),
        recipe={
            "strategy": {
                "kind": "partial",
                "rules": [{"pattern": "head.*", "lr_scale": 1.0}],
                "method": None,
                "r": None,
                "lora_alpha": None,
                "target_modules": None,
            }
        },
    ),
    Case(
        "more than fits",
        "run recipe.yaml hardware.memory_per_device=0.00001",
        3,
        ("does not fit", "largest:"),
    ),
]

DATA = [
    Case("missing data", "run recipe.yaml data.train.path=row.jsonl", 2, ("did you mean rows.jsonl?",)),
    Case(
        "missing test data",
        "run recipe.yaml",
        2,
        ("data.test.path",),
        recipe={"data": {"test": {"path": "t.jsonl", "text": "text"}}},
    ),
    Case("missing column", "run recipe.yaml data.train.prompt=promt", 2, ("promt", "prompt")),
    Case(
        "empty data set", "run recipe.yaml data.train.path=t.jsonl", 2, ("t.jsonl",), files={"t.jsonl": b""}
    ),
    Case("empty table", "run recipe.yaml", 2, ("t.csv",), recipe=SORT, files={"t.csv": b"text,label\n"}),
    Case(
        "one class only",
        "run recipe.yaml",
        2,
        ("same label",),
        recipe=SORT,
        files={"t.csv": b"text,label\na,x\nb,x\nc,x\n"},
    ),
    Case(
        "undecodable bytes",
        "run recipe.yaml",
        2,
        ("t.csv:22",),
        recipe=SORT,
        files={"t.csv": CSV + b"caf\xe9,c1\n"},
    ),
    Case(
        "a broken line",
        "run recipe.yaml data.train.path=t.jsonl",
        2,
        ("t.jsonl:2",),
        files={"t.jsonl": b'{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n'},
    ),
    Case(
        "unknown labels in test",
        "run recipe.yaml",
        2,
        ("c9",),
        recipe=laid_over(SORT, {"data": {"test": {"path": "e.csv", "text": "text", "label": "label"}}}),
        files={"t.csv": CSV, "e.csv": CSV + b"other,c9\n"},
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "unknown labels in test, checked",
        "check recipe.yaml",
        2,
        ("e.csv:22",),
        recipe=laid_over(SORT, {"data": {"test": {"path": "e.csv", "text": "text", "label": "label"}}}),
        files={"t.csv": CSV, "e.csv": CSV + b"other,c9\n"},
    ),
    Case(
        "rows too long",
        "run recipe.yaml data.max_length=4 data.overflow=error",
        2,
        ("rows.jsonl:2: 11 tokens",),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "rows too long, all dropped",
        "run recipe.yaml data.max_length=4 data.overflow=drop",
        1,
        ("no training examples are left",),
        worker=True,
        leaves=TRIED,
    ),
    Case("a model's limit exceeded", "run recipe.yaml data.max_length=4096", 2, ("data.max_length", "64")),
    Case(
        "a zip that is none",
        "run recipe.yaml data.train.path=t.zip",
        2,
        ("t.zip",),
        files={"t.zip": b"PK\x03\x04 broken"},
    ),
    Case(
        "a parquet that is none",
        "run recipe.yaml data.train.path=t.parquet",
        2,
        ("t.parquet",),
        files={"t.parquet": b"PAR1 broken"},
    ),
    Case(
        "an unknown kind of file",
        "run recipe.yaml data.train.path=t.xls",
        2,
        ("t.xls",),
        files={"t.xls": b"x"},
    ),
]

MODELS = [
    Case(
        "missing model",
        "run recipe.yaml model.model_name_or_path=./modl",
        2,
        ("did you mean model?",),
        made=model(),
    ),
    Case(
        "model is a file",
        f"run recipe.yaml {MODEL}/config.json",
        2,
        ("is a file; give the folder",),
        made=model(),
    ),
    Case(
        "no config.json",
        f"run recipe.yaml {MODEL}",
        2,
        ("has no config.json",),
        made=model(without("config.json")),
    ),
    Case(
        "config.json is no JSON",
        f"run recipe.yaml {MODEL}",
        2,
        ("config.json:1: not JSON",),
        made=model(holding("config.json", b"{")),
    ),
    Case(
        "config.json is a list",
        f"run recipe.yaml {MODEL}",
        2,
        ("holds no JSON object",),
        made=model(holding("config.json", b"[]")),
    ),
    Case(
        "config.json of no model",
        f"run recipe.yaml {MODEL}",
        2,
        ("./model: has no model_type",),
        made=model(holding("config.json", b"{}")),
    ),
    Case(
        "words for a size",
        f"run recipe.yaml {MODEL}",
        2,
        ("Field 'hidden_size' expected int, got str",),
        made=model(field_of("config.json", hidden_size="big")),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "an unknown architecture",
        f"run recipe.yaml {MODEL}",
        2,
        ("`nosuch`",),
        made=model(field_of("config.json", model_type="nosuch")),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "code without trust",
        f"run recipe.yaml {MODEL}",
        2,
        ("trust_remote_code",),
        made=model(field_of("config.json", model_type="nosuch", **REMOTE), holding("code.py", CODE)),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "truncated weights",
        f"run recipe.yaml {MODEL}",
        2,
        ("model.safetensors",),
        made=model(cut(WEIGHTS, 0.5)),
    ),
    Case(
        "weights cut in the header",
        f"run recipe.yaml {MODEL}",
        2,
        ("model.safetensors",),
        made=model(holding(WEIGHTS, b"\x00\x10\x00\x00\x00\x00\x00\x00{")),
    ),
    Case(
        "empty weights",
        f"run recipe.yaml {MODEL}",
        2,
        ("model.safetensors",),
        made=model(holding(WEIGHTS, b"")),
    ),
    Case(
        "weights are a web page",
        f"run recipe.yaml {MODEL}",
        2,
        ("model.safetensors",),
        made=model(holding(WEIGHTS, b"<!doctype html><html>")),
    ),
    Case(
        "weights are a pointer",
        f"run recipe.yaml {MODEL}",
        2,
        ("model.safetensors",),
        made=model(holding(WEIGHTS, b"version https://example.com/spec/v1\noid sha256:0\nsize 9\n")),
    ),
    Case(
        "a header with a wrong shape",
        f"run recipe.yaml {MODEL}",
        2,
        ("model.safetensors", "needs"),
        made=model(header(WEIGHTS, lies_about_shape)),
    ),
    Case(
        "a header with a wrong place",
        f"run recipe.yaml {MODEL}",
        2,
        ("model.safetensors",),
        made=model(header(WEIGHTS, lies_about_place)),
    ),
    Case(
        "a parameter of another name",
        f"run recipe.yaml {MODEL}",
        2,
        ("norm.weight",),
        made=model(header(WEIGHTS, other_vocabulary)),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "config of another size",
        f"run recipe.yaml {MODEL}",
        2,
        ("would start from random numbers",),
        made=model(field_of("config.json", intermediate_size=80)),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "a shard is missing",
        f"run recipe.yaml {MODEL}",
        2,
        ("b.safetensors",),
        made=model(
            without(WEIGHTS),
            holding("model.safetensors.index.json", b'{"weight_map": {"a": "b.safetensors"}}'),
        ),
    ),
    Case(
        "pickled weights only",
        f"run recipe.yaml {MODEL}",
        2,
        ("not in safetensors", "save_pretrained"),
        made=model(without(WEIGHTS), holding("pytorch_model.bin", b"\x80\x02}q\x00.")),
    ),
    Case(
        "no weights",
        f"run recipe.yaml {MODEL}",
        2,
        ("no weights",),
        made=model(without(WEIGHTS)),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "an adapter as the base",
        "run recipe.yaml model.model_name_or_path=./runs/tiny/adapter output_dir=runs/new",
        2,
        ("holds a PEFT adapter; give its base",),
        made=run(),
    ),
    Case(
        "quantized already",
        f"run recipe.yaml {MODEL}",
        2,
        ("already quantized",),
        made=model(field_of("config.json", quantization_config={"quant_method": "gptq"})),
    ),
    Case(
        "no tokenizer",
        f"run recipe.yaml {MODEL}",
        2,
        ("the tokenizer can't be loaded",),
        made=model(without("tokenizer.json", "tokenizer_config.json")),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "a broken tokenizer",
        f"run recipe.yaml {MODEL}",
        2,
        ("the tokenizer can't be loaded",),
        made=model(holding("tokenizer.json", b'{"version": "1.0", "mod')),
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "a Hub id without network",
        "run recipe.yaml model.model_name_or_path=some/model --offline",
        2,
        ("hf download some/model",),
    ),
    Case(
        "no Hub id",
        "run recipe.yaml model.model_name_or_path=some/mo..del --offline",
        2,
        ("nor a valid Hub id",),
    ),
    Case(
        "Hub data without network",
        "run recipe.yaml",
        2,
        ("hub:some/rows[train]: can't be loaded",),
        recipe={"data": {"train": {"path": None, "hub": "some/rows"}}},
        worker=True,
        leaves=TRIED,
        environment={"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
    ),
]
OTHER = "run recipe.yaml train.max_steps=7"
OUTPUT = [
    Case(
        "output holds another run",
        OTHER,
        2,
        ("runs/tiny holds a run of another plan", "output_dir=ANOTHER"),
        made=run(),
    ),
    Case(
        "output is no run",
        "run recipe.yaml",
        2,
        ("runs/tiny is not empty and no run directory",),
        files={"runs/tiny/thesis.txt": b"years of work"},
    ),
    Case("output is a file", "run recipe.yaml output_dir=notes", 2, ("notes",), files={"notes": b"a list"}),
    Case(
        "output is inside a file",
        "run recipe.yaml output_dir=notes/run",
        2,
        ("notes",),
        files={"notes": b"a list"},
    ),
    Case(
        "output can't be written", "run recipe.yaml output_dir=/proc/tlscale/run", 2, ("/proc/tlscale/run",)
    ),
    Case(
        "output is a dead link",
        "run recipe.yaml",
        2,
        ("runs/tiny",),
        made=lambda _: (Path("runs").mkdir(), Path("runs/tiny").symlink_to("/proc/none/where")),
    ),
    Case(
        "a damaged plan",
        "run recipe.yaml",
        2,
        ("runs/tiny/plan.json: not a plan",),
        made=run(cut("plan.json", 0.5)),
    ),
    Case(
        "an empty plan",
        "run recipe.yaml",
        2,
        ("runs/tiny/plan.json: not a plan",),
        made=run(holding("plan.json", b"")),
    ),
    Case(
        "a binary plan",
        "run recipe.yaml",
        2,
        ("runs/tiny/plan.json: not a plan",),
        made=run(holding("plan.json", b"\xff\x00")),
    ),
    Case(
        "an edited plan",
        "run recipe.yaml",
        2,
        ("changed after it was written",),
        made=run(field_of("plan.json", seed=5)),
    ),
    Case("recipe exists already", "init text-lora -o recipe.yaml", 2, ("recipe.yaml exists",)),
    Case("recipe into a file", "init text-lora -o rows.jsonl/a.yaml", 2, ("rows.jsonl",)),
    Case(
        "merged exists already",
        "merge runs/tiny -o model",
        2,
        ("model exists",),
        made=lambda world: (model()(world), run()(world)),
    ),
    Case(
        "merged into a file",
        "merge runs/tiny -o rows.jsonl/merged",
        2,
        ("is a file; name another folder",),
        made=run(),
    ),
]
RUNS = [
    *(
        Case(
            f"{command} of {what}",
            f"{command} {folder} {more}",
            2,
            said,
            made=made,
            leaves=("empty", *leaves),
        )
        for command, more in (
            ("verify", ""),
            ("eval", ""),
            ("merge", ""),
            ("predict", "hello"),
            ("report", ""),
            ("compare", "runs/tiny"),
        )
        for what, folder, said, made, leaves in (
            ("nothing", "nowhere", ("nowhere: ",), run(), ()),
            ("a file", "rows.jsonl", ("rows.jsonl: ",), run(), ()),
            (
                "a damaged plan",
                "bad",
                ("bad/plan.json: not a plan",),
                lambda world: (
                    run()(world),
                    Path("bad").mkdir(),
                    Path("bad/plan.json").write_bytes(b'{"seed": 1'),
                ),
                (),
            ),
        )
    ),
    Case(
        "verify without adapter",
        "verify runs/tiny",
        2,
        ("no stage has left an artifact",),
        made=run(unfinished),
        worker=True,
        leaves=("runs/tiny/events.jsonl",),
    ),
    Case(
        "merge without adapter",
        "merge runs/tiny",
        2,
        ("has left no result that could be merged",),
        made=run(unfinished),
    ),
    Case(
        "predict without adapter",
        "predict runs/tiny hello",
        2,
        ("has left no result yet",),
        made=run(unfinished),
        worker=True,
    ),
    Case(
        "report without adapter",
        "report runs/tiny --gate",
        4,
        ("the verdict is NOT MEASURED",),
        made=run(unfinished),
        leaves=("runs/tiny/verdict.json", "runs/tiny/report.*"),
    ),
    Case(
        "verify of an edited adapter",
        "verify runs/tiny",
        5,
        ("adapter_model.safetensors is not the file that was saved",),
        made=run(flipped("adapter/adapter_model.safetensors")),
        worker=True,
        leaves=("runs/tiny/events.jsonl",),
    ),
    Case(
        "verify of a cut adapter",
        "verify runs/tiny",
        5,
        ("adapter_model.safetensors is not the file that was saved",),
        made=run(cut("adapter/adapter_model.safetensors", 0.7)),
        worker=True,
        leaves=("runs/tiny/events.jsonl",),
    ),
    Case(
        "verify of a changed base",
        "verify runs/tiny",
        5,
        ("another base",),
        recipe={},
        made=moved_base,
        worker=True,
        leaves=("runs/tiny/events.jsonl",),
    ),
    Case(
        "merge of a cut adapter",
        "merge runs/tiny",
        5,
        ("adapter_model.safetensors is not the file that was saved",),
        made=run(cut("adapter/adapter_model.safetensors", 0.7)),
        worker=True,
    ),
    Case(
        "predict of a cut adapter",
        "predict runs/tiny hello",
        5,
        ("adapter_model.safetensors is not the file that was saved",),
        made=run(cut("adapter/adapter_model.safetensors", 0.7)),
        worker=True,
    ),
    Case(
        "a manifest that is no JSON",
        "verify runs/tiny",
        5,
        ("the manifest can't be used",),
        made=run(cut("adapter/manifest.json", 0.5)),
        worker=True,
        leaves=("runs/tiny/events.jsonl",),
    ),
    Case(
        "merge of a damaged result.json",
        "merge runs/tiny",
        2,
        ("result.json",),
        made=run(holding("result.json", b"{")),
    ),
    Case(
        "report of damaged measurements",
        "report runs/tiny",
        2,
        ("measurements.jsonl",),
        made=run(holding("measurements.jsonl", b"{]\n")),
    ),
    Case("report without outcomes", "report runs/tiny", 2, ("outcomes",), made=run(gone("outcomes"))),
    Case(
        "report of damaged events",
        "report runs/tiny",
        2,
        ("events.jsonl",),
        made=run(holding("events.jsonl", b"\xff{]\n")),
    ),
    Case(
        "predict from a missing file",
        "predict runs/tiny --file rws.jsonl",
        2,
        ("did you mean rows.jsonl?",),
        made=run(),
    ),
    Case(
        "predict a missing column",
        "predict runs/tiny --file rows.jsonl --column promt",
        2,
        ("promt",),
        made=run(),
    ),
    Case(
        "predict text and file",
        "predict runs/tiny hello --file rows.jsonl",
        2,
        ("one of TEXT and --file",),
        made=run(),
    ),
    Case("predict an empty text", "predict runs/tiny ''", 2, ("empty",), made=run(), worker=True),
    Case(
        "predict minus one token",
        "predict runs/tiny hello --max-new-tokens -1",
        2,
        ("'-1' is not a whole number above 0",),
        made=run(),
    ),
]


FULL = {"strategy": {"kind": "full", "method": None, "r": None, "lora_alpha": None, "target_modules": None}}
BROKEN = b"raise ImportError('its installation was interrupted')\n"
SHIM = {"PYTHONPATH": "shim" + os.pathsep + str(Path(__file__).parents[2])}
WORLD = [
    Case(
        "a full disk at the plan",
        "run recipe.yaml",
        2,
        ("runs/tiny/plan.json: can't be written: File too large",),
        worker=True,
        limit=2_000,
    ),
    Case(
        "a full disk at a checkpoint",
        "run recipe.yaml",
        1,
        ("runs/tiny/checkpoints/train/step-000002: can't be written",),
        recipe=FULL,
        worker=True,
        limit=50_000,
        leaves=TRIED,
    ),
    Case(
        "a full disk in a checkpoint's state",
        "run recipe.yaml",
        1,
        ("runs/tiny/checkpoints/train/step-000002: can't be written",),
        recipe=FULL,
        worker=True,
        limit=120_000,
        leaves=TRIED,
    ),
    Case(
        "a full disk at the result",
        "run recipe.yaml",
        1,
        ("runs/tiny/stages/train: can't be written",),
        recipe={**FULL, "train": {"save_steps": None}},
        worker=True,
        limit=50_000,
        leaves=TRIED,
    ),
    Case(
        "a full disk at the adapter",
        "run recipe.yaml",
        1,
        ("runs/tiny/stages/train: can't be written",),
        recipe={"train": {"save_steps": None}, "strategy": {"r": 32}},
        worker=True,
        limit=50_000,
        leaves=TRIED,
    ),
    Case(
        "a full disk at the report",
        "report runs/tiny",
        1,
        ("can't be written: File too large",),
        made=run(gone("report.html"), gone("report.md")),
        worker=True,
        limit=4_000,
    ),
    Case(
        "a full disk at a merge",
        "merge runs/tiny",
        1,
        ("runs/tiny/merged: can't be written",),
        made=run(),
        worker=True,
        limit=50_000,
    ),
    Case(
        "a tracker that isn't installed",
        "run recipe.yaml train.report_to=[mlflow]",
        2,
        ("train.report_to: mlflow is not installed; pip install mlflow",),
    ),
    Case(
        "a tracker half installed",
        "run recipe.yaml train.report_to=[wandb]",
        2,
        ("train.report_to", "interrupted"),
        files={"shim/wandb/__init__.py": BROKEN},
        environment=SHIM,
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "the loss becomes NaN",
        "run recipe.yaml train.learning_rate=1e30 train.max_grad_norm=0",
        1,
        ("the loss became", "lower train.learning_rate"),
        recipe=FULL,
        worker=True,
        leaves=TRIED,
    ),
    Case(
        "a worse result at the gate",
        "run recipe.yaml train.learning_rate=10 --gate",
        4,
        ("the verdict is NEGATIVE; --gate",),
        recipe=FULL,
        worker=True,
        leaves=TRIED,
    ),
]
CASES = [*RECIPES, *DATA, *MODELS, *OUTPUT, *RUNS, *WORLD]


def main() -> int:
    """Runs every case and prints the table; returns how many did not end as they must."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, Warm(Path(folder)) as python:
        world = build(Path(folder) / "world", python)
        chosen = [c for c in CASES if not sys.argv[1:] or any(a in c.name for a in sys.argv[1:])]
        for number, case in enumerate(chosen):
            root = Path(folder) / f"case-{number}"
            root.mkdir()
            outcome = attempt(case, world, root)
            wrong_here = faults(case, outcome)
            wrong += bool(wrong_here)
            last = [line for line in outcome.err.splitlines() if line.strip()]
            first = next((line for line in last if case.said[0] in line), last[0] if last else "")
            print(f"{case.name:<34} {outcome.code}  {first.strip().replace(f'{root}/', '')[:220]}")
            for fault in wrong_here:
                print(f"{'':<34} ** {fault}")
            if wrong_here and os.environ.get("ALL"):
                print(outcome.out[-1500:], outcome.err[-2500:])
    print(f"\n{len(chosen)} bad inputs, {wrong} not as they must be")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
