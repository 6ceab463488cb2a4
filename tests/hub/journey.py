"""What every form of a result is after its journey over the Hub: the same bits, and no second commit.

`python -m tests.hub.journey` trains, publishes and loads each form with the official clients and prints the
table; with words behind it, only the forms whose names hold one of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hub import kit
from tests.hub.server import Hub, serving
from tests.integration.warm import Warm

LOAD = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig
how, hub, local, base, commit = sys.argv[1:]
torch.manual_seed(0)
ids = torch.randint(0, 20, (2, 12))
def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits
def load(name, **more):
    if how == "labels":
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(name, num_labels=4, **more)
    return AutoModelForCausalLM.from_pretrained(name, **more)
nf4 = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
       bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)} if how == "nf4" else {}
if how in ("whole",):
    here, there = logits(load(local)), logits(load(hub))
elif how == "auto":
    here = logits(PeftModel.from_pretrained(load(base, revision=commit), local))
    there = logits(AutoPeftModelForCausalLM.from_pretrained(hub))
else:
    here = logits(PeftModel.from_pretrained(load(base, revision=commit, **nf4), local))
    there = logits(PeftModel.from_pretrained(load(base, revision=commit, **nf4), hub))
plain = logits(load(base, revision=commit, **nf4))
difference, effect = (float((one - there).abs().max()) for one in (here, plain))
print(json.dumps({"difference": difference, "effect": effect}))
"""


@dataclass(frozen=True)
class Form:
    """One form of a result: how it is trained, pushed and loaded."""

    name: str
    how: str
    strategy: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    push: tuple[str, ...] = ()


# The least that bitsandbytes packs for a CPU: rows of one block of 64.
WIDTH = 64
LORA = {"kind": "peft", "method": "lora", "r": 4, "target_modules": "all-linear"}
FORMS = (
    Form("LoRA, PeftModel", "by hand", LORA),
    Form("LoRA, AutoPeftModel", "auto", LORA),
    Form("LoRA classifier, PeftModel", "labels", LORA, {"task": "sequence-classification"}),
    Form("DoRA, PeftModel", "by hand", {**LORA, "use_dora": True}),
    Form("IA3, PeftModel", "by hand", {"kind": "peft", "method": "ia3"}),
    Form("LoRA on nf4, PeftModel", "nf4", LORA, {"quantization": "nf4"}),
    Form("LoRA merged, AutoModel", "whole", LORA, push=("--merged",)),
    Form("full, AutoModel", "whole", {"kind": "full"}),
)


def travel(
    form: Form, index: int, hub: Hub, root: Path, env: dict[str, str], python: str
) -> tuple[str, ...]:
    """Trains, publishes twice and loads one form; a row of the table."""
    model = {"model_name_or_path": kit.BASE, "task": "causal-lm", **form.model}
    name, repository = f"form-{index}", f"ada/form-{index}"
    more = {"data": kit.labelled(root)} if form.how == "labels" else {}
    file = kit.recipe(root, name=name, model=model, strategy=form.strategy, **more)
    kit.tlscale("run", str(file), "train.max_steps=20", env=env, cwd=root, python=python)
    push = ("push", f"runs/{name}", "--to", repository, *form.push, "--despite-verdict", "a test", "--json")
    said = [kit.tlscale(*push, env=env, cwd=root, python=python).stdout for _ in range(2)]
    first, second = map(json.loads, said)
    local = root / "runs" / name / ("publication.work/merged" if form.push else "adapter")
    commit = hub.store.repositories[kit.BASE].branches["main"]
    command = [sys.executable, "-c", LOAD, form.how, repository, str(local), kit.BASE, commit]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{form.name}: {done.stderr[-2000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    commits = len(hub.store.log(repository)) - 1
    assert first["changed"]
    assert not second["changed"]
    effect, difference = f"{found['effect']:.2g}", f"{found['difference']:.1e}"
    return form.name, str(commits), effect, difference, "yes" if found["difference"] == 0 else "NO"


def main() -> int:
    """All forms, one after the other."""
    forms = [one for one in FORMS if not sys.argv[1:] or any(word in one.name for word in sys.argv[1:])]
    head = f"{'form, loaded by':<26} {'commits of 2 pushes':>19} {'effect':>8} {'difference':>11}"
    print(f"{head} {'bit-equal':>10}", flush=True)
    good = True
    with tempfile.TemporaryDirectory() as made, serving(Path(made) / "hub") as hub:
        root = Path(made)
        kit.with_base(hub, root / "base", width=WIDTH)
        env = kit.environment(hub, root / "home")
        with Warm(root, env) as program:
            for index, form in enumerate(forms):
                name, commits, effect, difference, equal = travel(form, index, hub, root, env, str(program))
                print(f"{name:<26} {commits:>19} {effect:>8} {difference:>11} {equal:>10}", flush=True)
                good &= (commits, equal) == ("1", "yes")
    print(f"\n{len(forms)} forms, {'all' if good else 'NOT all'} bit-equal with one commit for two pushes")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
