"""A network from top to bottom, by the names of its parameters: head, blocks, embeddings."""

from __future__ import annotations

import re

from tlscale.errors import PlanError
from tlscale.planning.types import Facts

BLOCK = re.compile(r"^(?:.*?\.)??(?:layers?|h|blocks?|stages)\.(\d+)\.")
INPUT = re.compile(r"(?:.*\.)?(?:wte|wpe|cls_token|mask_token|conv_stem|[\w]*embed\w*)(?:\..*)?")


def depth_patterns(facts: Facts) -> tuple[str, ...]:
    """Regular expressions over parameter names, topmost first, that part the base's parameters by depth.

    The first matches the head and what else stands above the blocks (a last norm, a pooler); then come
    the blocks from the last to the first, and at last the embeddings, if there are any.

    Raises:
        PlanError: its parameters are not in numbered blocks.
    """
    blocks: dict[int, set[str]] = {}
    above = [r"head\..*"]
    below: list[str] = []
    for tensor in facts.tensors:
        if tensor.name.startswith("head."):
            continue
        found = BLOCK.match(tensor.name)
        if found is not None:
            blocks.setdefault(int(found[1]), set()).add(found[0])
        else:
            (below if INPUT.fullmatch(tensor.name) else above).append(re.escape(tensor.name))
    if not blocks:
        raise PlanError(
            f"{facts.model}: its parameters are in no numbered blocks, so there is no top and no bottom; "
            "use strategy kind: partial with rules"
        )
    numbered = [
        "|".join(rf"{re.escape(prefix)}.*" for prefix in sorted(blocks[index]))
        for index in sorted(blocks, reverse=True)
    ]
    return ("|".join(above), *numbered, *(["|".join(below)] if below else []))
