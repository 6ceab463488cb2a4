"""Writes texts that a language model tells of itself: rows to replay where its own data is out of reach.

python tools/stories.py MODEL OUTPUT.jsonl [COUNT]

Sampled at temperature 1 from the beginning-of-text token, as pseudo-rehearsal needs it (Robins 1995).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

AT_ONCE = 64
LONGEST = 256


def main(model: str, output: str, count: str = "512") -> None:
    """Samples `count` texts of at most `LONGEST` tokens with a fixed seed."""
    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModelForCausalLM.from_pretrained(model).eval()
    start = tokenizer.bos_token_id
    texts: list[str] = []
    while len(texts) < int(count):
        begun = torch.full((AT_ONCE, 1), start)
        made = network.generate(
            input_ids=begun, attention_mask=torch.ones_like(begun), do_sample=True, top_k=0,
            temperature=1.0, max_new_tokens=LONGEST - 1, pad_token_id=start, eos_token_id=start,
        )  # fmt: skip
        texts += tokenizer.batch_decode(made, skip_special_tokens=True)
    rows = (json.dumps({"text": text.strip()}) + "\n" for text in texts[: int(count)])
    Path(output).write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
