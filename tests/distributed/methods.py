"""One recipe for each way to learn, small enough that all of them are run by one group of processes.

Rows don't share out evenly: with `ROWS` of them and steps of `BATCH`, the last step of an epoch has one, so
that one of two processes has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tests.distributed import kit
from tests.integration import tiny
from tlscale import plugins
from tlscale.recipe.objective import Objective


def _fields(annotation: Any) -> tuple[str, ...]:
    """The settings of what a field may hold besides nothing."""
    return tuple(name for one in get_args(annotation) for name in getattr(one, "model_fields", ()))


ROWS, BATCH = 33, 16
STEPS = 4
# processes draw numbers of their own for dropout
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LORA = {"kind": "peft", "method": "lora", "r": 2, "target_modules": "all-linear", "head": "pooled"}
POOLED = {"kind": "layer_decay", "decay": 1, "head": "pooled"}
WORDS = {"red": "red", "green": "green", "blue": "blue", "black": "black"}
# what an adapter was trained for that other cases begin with
SOURCES = ("staying", "confused")

# Strategy, train, and data of each classifier.
CLASSIFIERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "staying": (
        LORA,
        {"objective": {"l2_sp": {"weight": 0.5}, "ewc": {"rows": 5}, "replay": {}, "rdrop": {}}},
    ),
    "coral": (POOLED, {"objective": {"coral": {}}}),
    "mmd": (POOLED, {"objective": {"mmd": {}}}),
    "confused": ({**LORA, "target_modules": ["query", "value"]}, {"objective": {"mcc": {}}}),
    "dann": (POOLED, {"objective": {"dann": {"hidden": 8}}}),
    "cdan": (POOLED, {"objective": {"cdan": {"hidden": 8}}}),
    "label-shift": (LORA, {"importance": {"kind": "label_shift"}}),
    "covariate": ({"kind": "features"}, {"importance": {"kind": "covariate"}}),
    "contrastive": ({"kind": "contrastive"}, {}),
    "unfreezing": (
        {"kind": "gradual_unfreezing", "head": "pooled"},
        {"averaging": {"kind": "ema", "decay": 0.9}, "mixout": 0.2, "curriculum": {"by": "length"}},
    ),
    "swa": ({"kind": "partial", "last_layers": 1}, {"averaging": {"kind": "swa", "start": 0.4}}),
}
# averages are kept of shared-out optimizers' weights too
SHARDINGS = {"swa": "zero2"}
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "per-task": (LORA, {"adapters": "per_task", "balance": "tasks"}),
    "beside-shared": (LORA, {"adapters": "both", "balance": "pcgrad"}),
    "uncertain": (POOLED, {"balance": "uncertainty"}),
    "in-conflict": (POOLED, {"balance": "pcgrad", "temperature": 3.0}),
}
MASKED = ("none", "zero2", "zero3", "fsdp2")
# every term that has a weight, and those of them that are about a language model's answers or adapter
TERMS = tuple(
    name for name in Objective.model_fields if "weight" in _fields(Objective.model_fields[name].annotation)
)
OF_LANGUAGE = ("kl_to_base", "o_lora", "choices")


def _by_themselves() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Classifiers of strategies and terms that have no recipe here: with their smallest options."""
    recipes = (*CLASSIFIERS.values(), *TASKS.values())
    # of these two, one trains nothing and the other becomes one of the others
    kinds = {strategy["kind"] for strategy, _ in recipes} | {"none", "auto", "full", "fusion", "adda"}
    terms = {name for _, train in recipes for name in train.get("objective", {})} | {*OF_LANGUAGE}
    strategies = {
        kind: {"kind": kind, **plugins.load("tlscale.strategies", kind).variants()[0]}
        for kind in plugins.BUILTINS["tlscale.strategies"]
        if kind not in kinds
    }
    made = {kind: (strategy, {}) for kind, strategy in strategies.items()}
    return made | {name: (POOLED, {"objective": {name: {}}}) for name in TERMS if name not in terms}


CLASSIFIERS |= _by_themselves()


@dataclass(frozen=True)
class Bench:
    """Models and rows in a folder; `sources` is where the adapters are that some cases begin with."""

    root: Path
    sources: Path

    def cases(self, processes: int) -> list[dict[str, Any]]:
        """All recipes for so many processes, those first that others begin with."""
        hardware: dict[str, Any] = {"processes": processes}
        made = [self._classifier(name, *parts) for name, parts in CLASSIFIERS.items()]
        made += [self._tasks(name, *parts) for name, parts in TASKS.items()]
        made += [self._fusion(), self._adapted(), self._pattern(), self._paced(), self._chosen()]
        made.append(self._varied())
        for recipe in made:
            recipe["hardware"] |= hardware
            if processes > 1:
                recipe["hardware"] |= {"sharding": SHARDINGS.get(recipe["name"], "none")}
        shardings = MASKED if processes > 1 else MASKED[:1]
        return made + [self._masked(sharding, **hardware) for sharding in shardings]

    def weightless(self) -> list[dict[str, Any]]:
        """Plain training, and the same beside each term at a weight below rounding, all with dropout.

        Not at 0, at which a term isn't computed.
        """
        found = [
            self._beside("plain-classifier", "l2_sp", {}),
            self._beside("plain-language", "choices", {}),
        ]
        for name in TERMS:
            adapters = {"adapters": [self._adapter("paced")]} if name == "o_lora" else {}
            found.append(self._beside(f"with-{name}", name, {name: {"weight": 1e-30, **adapters}}))
        return found

    def _beside(self, name: str, term: str, objective: dict[str, Any]) -> dict[str, Any]:
        if term in OF_LANGUAGE:
            made = self._language(name, {"objective": objective})
            made["strategy"]["lora_dropout"] = 0.1
        else:
            made = self._classifier(name, POOLED, {"objective": objective})
            del made["model"]["config"]
        return made

    def _adapter(self, name: str) -> str:
        return str(self.sources / name / "stages" / "train")

    def _recipe(
        self, name: str, model: str, task: str, data: dict[str, Any], **parts: Any
    ) -> dict[str, Any]:
        train = {
            "max_steps": STEPS,
            "train_batch_size": BATCH,
            "learning_rate": 3e-3,
            **parts.pop("train", {}),
        }
        about = {"task": task} if task == "causal-lm" else {"task": task, "config": STILL}
        return kit.recipe(
            name,
            self.root / model,
            self._rows,
            model=about,
            data={"max_length": 32, **data},
            train=train,
            **parts,
        )

    @property
    def _rows(self) -> Path:
        return self.root / "rows.jsonl"

    def _of(self, **columns: str) -> dict[str, Any]:
        source = {"path": str(self._rows), **columns}
        return {"train": source, "test": source}

    def _classes(self) -> dict[str, Any]:
        made = self._of(text="text", label="label")
        other = {"path": str(self.root / "more.jsonl"), "text": "text", "label": "label"}
        unlabelled = {"path": str(self.root / "more.jsonl"), "text": "prompt"}
        return {**made, "validation": other, "replay": other, "unlabelled": unlabelled}

    def _classifier(self, name: str, strategy: dict[str, Any], train: dict[str, Any]) -> dict[str, Any]:
        return self._recipe(
            name, "bert", "sequence-classification", self._classes(), strategy=strategy, train=train
        )

    def _tasks(self, name: str, strategy: dict[str, Any], multi_task: dict[str, Any]) -> dict[str, Any]:
        colour = self._of(text="text", label="label")["train"]
        thing = {"path": str(self.root / "more.jsonl"), "text": "anchor", "label": "completion"}
        rows = {"tasks": {"one": colour, "two": thing}}
        return self._recipe(
            name, "bert", "sequence-classification", {"train": rows, "test": rows}, strategy=strategy,
            train={"multi_task": multi_task},
        )  # fmt: skip

    def _fusion(self) -> dict[str, Any]:
        adapters = [self._adapter(name) for name in SOURCES]
        strategy = {"kind": "fusion", "adapters": adapters, "size": 4}
        return self._classifier("fusion", strategy, {})

    def _adapted(self) -> dict[str, Any]:
        first = {"name": "source", "strategy": POOLED}
        second = {"name": "train", "strategy": {"kind": "adda", "hidden": 8}}
        made = self._classifier("adda", POOLED, {})
        del made["strategy"]
        return {**made, "stages": [first, second]}

    def _pattern(self) -> dict[str, Any]:
        pattern = self._of(prompt="{anchor} is {mask} .", completion="label")
        rows = {role: {**source, "words": WORDS} for role, source in pattern.items()}
        other = {"path": str(self.root / "more.jsonl"), "text": "prompt"}
        return self._recipe(
            "pet", "masked", "masked-lm", {**rows, "unlabelled": other}, strategy={"kind": "full"},
            train={"objective": {"pet": {"mlm": 0.3}}},
        )  # fmt: skip

    def _chosen(self) -> dict[str, Any]:
        clear = {"weight": 1.0, "adapters": [self._adapter("paced")]}
        return self._language("chosen", {"objective": {"choices": {}, "kl_to_base": {}, "o_lora": clear}})

    def _paced(self) -> dict[str, Any]:
        return self._language("paced", {"curriculum": {"by": "loss", "epochs": 2}})

    def _language(self, name: str, train: dict[str, Any]) -> dict[str, Any]:
        return self._recipe(
            name, "llama", "causal-lm", self._of(prompt="prompt", completion="completion"),
            strategy={name: value for name, value in LORA.items() if name != "head"}, train=train,
        )  # fmt: skip

    def _varied(self) -> dict[str, Any]:
        rows = {"path": str(self.root / "pictures.npz"), "image": "images", "label": "labels"}
        drawn = {"random_resized_crop": [0.3, 1.0], "horizontal_flip": 0.5, "color_jitter": 0.4}
        return self._recipe(
            "varied", "vit", "image-classification", {"train": rows, "test": rows, "augmentation": drawn},
            strategy={"kind": "full"},
        )  # fmt: skip

    def _masked(self, sharding: str, **hardware: Any) -> dict[str, Any]:
        other = {"path": str(self.root / "more.jsonl"), "text": "prompt"}
        return self._recipe(
            f"masked-{sharding}", "masked", "masked-lm", {**self._of(text="prompt"), "replay": other},
            strategy={"kind": "full"}, train={"objective": {"replay": {"weight": 0.5}}},
            hardware={**hardware, "sharding": sharding},
        )  # fmt: skip


def bench(root: Path, sources: Path) -> Bench:
    """Makes the models and rows in the empty folder `root`."""
    tiny.llama(root / "llama")
    tiny.bert(root / "bert")
    tiny.masked_bert(root / "masked")
    tiny.vit(root / "vit")
    tiny.pictures(root / "pictures.npz", ROWS)
    tiny.sentences(root / "rows.jsonl", ROWS)
    tiny.sentences(root / "more.jsonl", 40, seed=1)
    return Bench(root, sources)
