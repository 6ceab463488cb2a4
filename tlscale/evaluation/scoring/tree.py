"""One pass as arrays: tokens in depth-first order, where each subtree ends, and the rows to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlscale.evaluation.scoring.encode import Path

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """What one pass gives to the model, and what it asks.

    `ids`, `positions` and `ends` are [n]: token j is seen by tokens j .. ends[j]-1 of the pass, and every
    token sees the `depth` tokens on the stack. `rows` are the distinct positions [r] whose next token is
    asked; question q asks `targets[q]` at `rows[asked[q]]` for path `owners[q]`. A `chain` is a single
    line of tokens, for which a plain causal mask is right.
    """

    depth: int
    ids: Ints
    positions: Ints
    ends: Ints
    chain: bool
    rows: Ints
    asked: Ints
    targets: Ints
    owners: Ints


def line(path: Path, depth: int, upto: int, askers: Sequence[tuple[int, Path]]) -> Tokens:
    """Tokens [depth, upto) of `path`, and the questions of all paths that share them."""
    n = upto - depth
    rows, targets, owners = [], [], []
    for owner, asker in askers:
        first = len(asker.inputs) - len(asker.targets)
        start, stop = max(first, depth), min(len(asker.inputs), upto)
        if start < stop:
            rows.append(np.arange(start - depth, stop - depth))
            targets.append(asker.targets[start - first : stop - first])
            owners.append(np.full(stop - start, owner))
    return _tokens(
        depth, path.inputs[depth:upto], np.arange(depth, upto), np.full(n, n), True, rows, targets, owners
    )


def branches(members: Sequence[tuple[int, Path]], depth: int, shared: Sequence[int]) -> Tokens:
    """The tree of all `members` beyond `depth`; each shares `shared` leading tokens with the one before.

    Members come in lexicographic order, so that a depth-first layout is made by walking them once.
    """
    ids, positions, ends = [], [], []
    rows, targets, owners = [], [], []
    way = np.zeros(0, np.int64)  # the node of each position beyond depth on the current path
    made = 0
    for (owner, path), common in zip(members, shared, strict=True):
        kept = max(common, depth) - depth
        new = len(path.inputs) - depth - kept
        ends.append((way[kept:], made))
        way = np.concatenate([way[:kept], np.arange(made, made + new)])
        ids.append(path.inputs[depth + kept :])
        positions.append(np.arange(depth + kept, depth + kept + new))
        made += new
        here = min(len(path.targets), len(way))
        if here:
            rows.append(way[-here:])
            targets.append(path.targets[-here:])
            owners.append(np.full(here, owner))
    stops = np.full(made, made)
    for nodes, end in ends:
        stops[nodes] = end
    chain = bool((stops == made).all())
    return _tokens(
        depth, np.concatenate(ids), np.concatenate(positions), stops, chain, rows, targets, owners
    )


def _tokens(
    depth: int,
    ids: npt.NDArray[np.int32],
    positions: Ints,
    ends: Ints,
    chain: bool,
    rows: list[Ints],
    targets: list[npt.NDArray[np.int32]],
    owners: list[Ints],
) -> Tokens:
    nothing = np.zeros(0, np.int64)
    flat = np.concatenate([nothing, *rows])
    distinct, asked = np.unique(flat, return_inverse=True)
    return Tokens(
        depth=depth,
        ids=ids.astype(np.int64),
        positions=positions,
        ends=ends,
        chain=chain,
        rows=distinct,
        asked=asked,
        targets=np.concatenate([nothing, *targets]),
        owners=np.concatenate([nothing, *owners]),
    )
