"""Artifacts that mean harm, as they could lie on a Hub or in a folder, each for the command that meets it.

Every one of them, if it were believed, would make a file appear, start a program, or ask another host: the
names and addresses in them are real on the machine of the test, so that a success would be seen.
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub import kit

Files = dict[str, bytes]


@dataclass(frozen=True)
class Hostile:
    """One artifact: what it tries, its files, and the command that is given it (`{}` is where it lies)."""

    name: str
    files: Files
    command: tuple[str, ...] = ("verify", "hub:{}")
    revision: str = "main"


class Trap:
    """Unpickling it makes the file `target`."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return exec, (f"open({str(self.target)!r}, 'w').write('unpickled')",)


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file in the format, whatever its header says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def adapter(good: Files, **changed: Any) -> Files:
    """The good publication with fields of its config changed; without our own records."""
    said = {**json.loads(good["adapter_config.json"]), **changed}
    return {
        "adapter_config.json": json.dumps(said).encode(),
        "adapter_model.safetensors": good["adapter_model.safetensors"],
    }


def ours(good: Files, **changed: Any) -> Files:
    """The good publication with fields of its manifest changed."""
    said = {**json.loads(good["manifest.json"]), **changed}
    return {**good, "manifest.json": json.dumps(said).encode()}


def recipe(good: Files, text: str) -> Files:
    """The good publication with another recipe."""
    return {**good, "recipe.yaml": text.encode()}


AGAIN = ("reproduce", "hub:{}", "-o", "runs/hostile-again")
HEAD = "version: 1\nname: x\nstrategy: {kind: full}\n"
MODEL = f"model: {{model_name_or_path: {kit.BASE}, task: causal-lm}}\n"


def adapters(good: Files, trap: Path, address: str) -> list[Hostile]:
    """Adapters on the Hub, met by `tlscale verify`."""
    weights = good["adapter_model.safetensors"]
    pickled = pickle.dumps(Trap(trap))
    config = good["adapter_config.json"]
    deep = b'{"peft_type":' * 3000 + b"1" + b"}" * 3000
    lies = safetensors({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, b"1234")
    over = {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }

    def file(name: str, weights: bytes) -> Hostile:
        return Hostile(name, {**adapter(good), "adapter_model.safetensors": weights})

    def text(name: str, config: bytes) -> Hostile:
        return Hostile(name, {**adapter(good), "adapter_config.json": config})

    def said(name: str, **changed: Any) -> Hostile:
        return Hostile(name, adapter(good, **changed))

    def beside(name: str, file: str, content: str) -> Hostile:
        return Hostile(name, {**adapter(good), file: content.encode()})

    card = "---\nlicense: mit\n---\n# Good\n\n"
    fetch = f"fetch('{address}/ada/tiny-llama')"
    insides = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    tokens = json.dumps({"auto_map": {"AutoTokenizer": ["trap.Tokenizer", None]}})
    code = Hostile(
        "tokenizer with code",
        {
            **adapter(good),
            "tokenizer_config.json": tokens.encode(),
            "trap.py": f"open({str(trap)!r}, 'w').write('imported')".encode(),
        },
    )
    library = {"parent_library": "trap", "base_model_class": "X"}
    multitask = {"peft_type": "MULTITASK_PROMPT_TUNING"}
    return [
        Hostile("pickled weights alone", {"adapter_config.json": config, "adapter_model.bin": pickled}),
        file("pickle under the name of safetensors", pickled),
        file("header longer than the file", safetensors({}, length=1 << 40)),
        file("header that is no JSON", safetensors(b"\xff{{")),
        file("tensor larger than its bytes", lies),
        file("tensors over each other", safetensors(over, b"1234")),
        file("weights cut short", weights[:-100]),
        file("no tensors", safetensors({})),
        file("adapter that does nothing", zeroed(weights)),
        file("adapter with not-a-numbers", zeroed(weights, b"\xff")),
        text("config of three thousand levels", deep),
        text("config with a key twice", b'{"peft_type":"LORA","peft_type":"X"}'),
        text("config that is a list", b"[]"),
        said("base is a folder here", base_model_name_or_path=str(trap.parent)),
        said("base is a way out", base_model_name_or_path="../../etc"),
        said("base is an address", base_model_name_or_path=f"{address}/ada/tiny-llama"),
        said("revision is a way out", revision="../../refs/heads/main"),
        said("auto_mapping imports a module", auto_mapping=library),
        said("megatron_core names a module", megatron_config={"a": 1}, megatron_core="trap"),
        said("init from a file", **multitask, prompt_tuning_init_state_dict_path=str(trap)),
        said("adapters by path", peft_type="XLORA", adapters={"a": str(trap.parent)}),
        said("init_lora_weights names a file", init_lora_weights=str(trap)),
        said("tokenizer at a private address", tokenizer_name_or_path="http://169.254.169.254/latest"),
        said("pattern without an end", target_modules="(.*)*(.*)*x$"),
        said("pattern with nested repeats", target_modules="((a+)+)+b"),
        said("rank of two thousand million", r=2_000_000_000),
        said("rank larger than any tensor", r=5000),
        beside("card with a script", "README.md", f"{card}<script>{fetch}</script>\n"),
        beside("card with an event handler", "README.md", f'{card}<img src=x onerror="{fetch}">\n'),
        beside("card with a script in a false fence", "README.md", f"{card}<div>\n```\n<script>\n```\n"),
        beside("card with a link that runs", "README.md", f"{card}[all of it](javascript:{fetch})\n"),
        beside("card whose metadata make an object", "README.md", "---\na: !!python/name:os.system\n---\n"),
        beside("card whose metadata unfold", "README.md", "---\na: &a [x, x]\nb: [*a, *a]\n---\n"),
        beside("card of 20,000 levels", "README.md", f"---\na: {'[' * 20_000}{']' * 20_000}\n---\n"),
        beside("card of two megabytes", "README.md", card + "x" * 2_000_000),
        code,
        beside("tokenizer that reads a file", "tokenizer_config.json", '{"vocab_file": "/etc/passwd"}'),
        beside("tokenizer of a module", "tokenizer_config.json", '{"tokenizer_class": "trap.Tokenizer"}'),
        beside("template in the config", "tokenizer_config.json", json.dumps({"chat_template": insides})),
        beside("template in a file", "chat_template.jinja", insides),
    ]


def zeroed(weights: bytes, byte: bytes = b"\0") -> bytes:
    """The same header over one byte repeated."""
    (length,) = struct.unpack("<Q", weights[:8])
    return weights[: 8 + length] + byte * (len(weights) - 8 - length)


def manifests(good: Files, trap: Path) -> list[Hostile]:
    """Records of our own kind that lie, met by `tlscale verify`."""
    said = json.loads(good["manifest.json"])
    outside = {**said["files"], "../../../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}}
    changed = {**good, "adapter_model.safetensors": zeroed(good["adapter_model.safetensors"], b"\1")}
    head = {**good, "head.json": b'{"features": 1000000000, "hidden": 1000000000, "pooling": "mean"}'}
    whole = {
        "manifest.json": json.dumps({**said, "kind": "checkpoint"}).encode(),
        "config.json": json.dumps(
            {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "trap.Model"}}
        ).encode(),
        "trap.py": f"open({str(trap)!r}, 'w').write('imported')".encode(),
        "model.safetensors": good["adapter_model.safetensors"],
    }
    return [
        Hostile("manifest vouches for a file outside", ours(good, files=outside)),
        Hostile("manifest names an attribute of torch", ours(good, compute_dtype="load")),
        Hostile("manifest of another base", ours(good, base=str(trap.parent))),
        Hostile("weights other than the manifest's", changed),
        Hostile("head of impossible size", head),
        Hostile("checkpoint with Python code", whole),
    ]


def recipes(good: Files, trap: Path, address: str) -> list[Hostile]:
    """Recipes on the Hub, met by `tlscale reproduce`."""
    code = HEAD.replace("{kind: full}", "{kind: full, objective: 'trap:run'}") + MODEL
    tag = f"{HEAD}{MODEL}x: !!python/object/apply:os.system ['touch {trap}']\n"
    bomb = "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9))
    deep = "x: " + "[" * 500 + "]" * 500 + "\n"
    remote = HEAD + MODEL.replace(
        "causal-lm}", f"causal-lm, revision: {'a' * 40}, trust_remote_code: true}}"
    )
    stealing = f"{HEAD}{MODEL}data: {{train: {{path: /etc/passwd, text: text}}}}\n"
    asking = f"{HEAD}{MODEL}evaluate: {{predictor: openai, predictor_options: {{url: '{address}'}}}}\n"
    sending = f"{HEAD}{MODEL}publish: {{to: mallory/stolen, private: false}}\n"
    starting = f"{HEAD}{MODEL}launch: {{slurm: {{setup: 'touch {trap}'}}}}\n"
    elsewhere = HEAD + MODEL.replace(kit.BASE, str(trap.parent))
    return [
        Hostile(name, recipe(good, text), AGAIN)
        for name, text in (
            ("recipe names a module", code),
            ("recipe with a Python tag", tag),
            ("recipe that unfolds", HEAD + MODEL + bomb),
            ("recipe of five hundred levels", HEAD + MODEL + deep),
            ("recipe of two megabytes", HEAD + MODEL + "# " + "x" * 2_000_000),
            ("recipe that trusts remote code", remote),
            ("recipe that reads a file here", stealing),
            ("recipe that asks another host", asking),
            ("recipe that publishes", sending),
            ("recipe that starts a program", starting),
            ("recipe whose base is a folder here", elsewhere),
            ("recipe that writes elsewhere", f"{HEAD}{MODEL}output_dir: {trap}\n"),
        )
    ]


def folders(folder: Path, trap: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Bases, data and recipes that a user got as files, and the commands that meet them."""
    made = []

    def plan(name: str, model: dict[str, Any], data: str = "", **columns: str) -> None:
        file = folder / f"{name.replace(' ', '-')}.yaml"
        raw = {
            "version": 1,
            "name": "x",
            "model": {"task": "causal-lm", **model},
            "strategy": {"kind": "full"},
        }
        source = {"path": data or "builtin:code-train.jsonl", **(columns or {"text": "text"})}
        file.write_text(json.dumps({**raw, "data": {"train": source}}))
        made.append((name, ("plan" if not data else "check", str(file))))

    code = kit.tiny.llama(folder / "code")
    said = json.loads((code / "config.json").read_text())
    mapped = {"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model"}
    (code / "config.json").write_text(json.dumps({**said, "model_type": "trap", "auto_map": mapped}))
    (code / "trap.py").write_text(f"open({str(trap)!r}, 'w').write('imported')")
    plan("base whose config asks for code", {"model_name_or_path": str(code)})
    # its numbers can be planned with; what it asks for is met when it is loaded
    made[-1] = (made[-1][0], ("run", *made[-1][1][1:]))
    pickled = folder / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(trap)))
    plan("base with pickled weights", {"model_name_or_path": str(pickled)})
    index = folder / "index"
    index.mkdir()
    (index / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    (index / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../../secret.safetensors"}})
    )
    plan("index that leaves the folder", {"model_name_or_path": str(index)})
    archive = folder / "slip.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../slipped.png", b"x")
        link = zipfile.ZipInfo("cats/link.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    images = {"task": "image-classification", "model_name_or_path": "builtin:pico"}
    plan("archive with .. and links", images, str(archive))
    arrays = folder / "arrays.npz"
    with zipfile.ZipFile(arrays, "w") as file:
        file.writestr("images.npy", npy(pickle.dumps(Trap(trap))))
        file.writestr("labels.npy", npy(pickle.dumps(Trap(trap))))
    plan("arrays that hold a pickle", images, str(arrays), image="images", label="labels")
    bomb = folder / "bomb.yaml"
    bomb.write_text(HEAD + MODEL + "a: &a [x]\nb: [*a, *a]\n")
    made.append(("recipe file with aliases", ("check", str(bomb))))
    return made


def npy(data: bytes) -> bytes:
    """An array file that says it holds Python objects."""
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (64 - (10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def addresses() -> list[tuple[str, tuple[str, ...]]]:
    """Addresses that are not the Hub."""
    return [
        (name, ("verify", text))
        for name, text in (
            ("address of a private range", "http://169.254.169.254/latest/meta-data"),
            ("address of this machine", "http://127.0.0.1:1/ada/colours"),
            ("address with the Hub in its name", "https://huggingface.co.example.com/ada/colours"),
            ("name that leaves the Hub's folder", "hub:../../etc/passwd"),
        )
    ]
