"""A network from top to bottom, by the names of its parameters: head, blocks, embeddings."""

from __future__ import annotations

import re

from tlscale.errors import PlanError
from tlscale.planning.types import Facts

BLOCK = re.compile(r"^(?:.*?\.)??(?:layers?|h|blocks?|stages)\.(\d+)\.")
INPUT = re.compile(r"(?:.*\.)?(?:wte|wpe|cls_token|mask_token|conv_stem|[\w]*embed\w*)(?:\..*)?")


def numbered_blocks(facts: Facts) -> dict[int, str]:
    """The base's numbered blocks, each a regular expression over whole names of its parameters.

    From the input upwards. Where numbers stand inside numbers, the outermost counts.

    Raises:
        PlanError: its parameters are not in numbered blocks.
    """
    found: dict[int, set[str]] = {}
    for tensor in facts.tensors:
        block = BLOCK.match(tensor.name)
        if block is not None and not tensor.name.startswith("head."):
            found.setdefault(int(block[1]), set()).add(block[0])
    if not found:
        raise PlanError(
            f"{facts.model}: its parameters are in no numbered blocks, so there is no top and no bottom; "
            "use strategy kind: partial with rules"
        )
    return {
        index: "|".join(rf"{re.escape(prefix)}.*" for prefix in sorted(found[index]))
        for index in sorted(found)
    }


def depth_patterns(facts: Facts) -> tuple[str, ...]:
    """Regular expressions over parameter names, topmost first, that part the base's parameters by depth.

    The first matches the head and what else stands above the blocks (a last norm, a pooler); then come
    the blocks from the last to the first, and at last the embeddings, if there are any.

    Raises:
        PlanError: its parameters are not in numbered blocks.
    """
    blocks = numbered_blocks(facts)
    above = [r"head\..*"]
    below: list[str] = []
    for tensor in facts.tensors:
        if not tensor.name.startswith("head.") and BLOCK.match(tensor.name) is None:
            (below if INPUT.fullmatch(tensor.name) else above).append(re.escape(tensor.name))
    return ("|".join(above), *reversed(blocks.values()), *(["|".join(below)] if below else []))
