"""Which processes hold what: the choice of a sharding, and what it makes of the account of memory."""

from __future__ import annotations

from collections.abc import Callable
from importlib import util

from tlscale.planning import activations
from tlscale.planning.item import MemoryItem
from tlscale.planning.types import Facts, Sharding, World

# As little as fits: each shares out more than the one before, and exchanges more over the network.
IN_ORDER: tuple[Sharding, ...] = ("zero1", "zero2", "zero3", "fsdp2")
SHARED: dict[str, tuple[str, ...]] = {
    "none": (),
    "zero1": ("optimizer",),
    "zero2": ("optimizer", "gradients"),
    "zero3": ("optimizer", "gradients", "weights", "adapter and head"),
    "fsdp2": ("optimizer", "gradients", "weights", "adapter and head"),
}
# the block at work, and the next one, which is gathered meanwhile
GATHERED_BLOCKS = 2


def choose(
    asked: str, world: World, needs: Callable[[World], int], refused: Callable[[World], bool]
) -> tuple[World, str]:
    """The world with its sharding settled, and the reason, empty where there was nothing to choose.

    Args:
        asked: What the recipe says; `auto` takes the first that fits of none, zero1, zero2, zero3 and
            fsdp2, and none where nothing fits or the memory isn't known.
        world: The processes, not yet sharded.
        needs: Bytes that a device needs in a world.
        refused: Whether the rest of the recipe doesn't go together with a world's sharding.
    """
    if asked != "auto":
        return world.model_copy(update={"sharding": asked}), ""
    room = world.memory_per_device
    if world.processes == 1 or room is None:
        return world, ""
    whole = needs(world)
    if whole <= room:
        return world, (
            f"hardware.sharding: none, each device can hold everything ({_gb(whole)} of {_gb(room)} GB)"
        )
    for candidate in IN_ORDER:
        made = world.model_copy(update={"sharding": candidate})
        if missing(candidate) or refused(made):
            continue
        needed = needs(made)
        if needed <= room:
            return made, (
                f"hardware.sharding: {candidate}, the least that fits: {_gb(needed)} of {_gb(room)} GB a "
                f"device, and {_gb(whole)} GB with everything on each"
            )
    return world, ""


def missing(sharding: str) -> bool:
    """Whether `sharding` needs DeepSpeed, and it is not installed."""
    return sharding.startswith("zero") and util.find_spec("deepspeed") is None


def shared_out(items: tuple[MemoryItem, ...], world: World, facts: Facts) -> tuple[MemoryItem, ...]:
    """The account of one device, of a model whose account on one device alone is `items`."""
    if world.processes == 1:
        return items
    found = [_share(item, world) for item in items]
    if world.sharding == "none":
        found += [
            MemoryItem(name="buckets", bytes=item.bytes, note="gradients on their way between processes")
            for item in items
            if item.name == "gradients"
        ]
    if world.shards_weights:
        weights = next((item.bytes for item in items if item.name == "weights"), 0)
        gathered = round(GATHERED_BLOCKS * weights * largest_block(facts))
        note = "two blocks' weights, whole while they work"
        found.append(MemoryItem(name="gathered", bytes=gathered, note=note))
    return tuple(item for item in found if item.bytes)


def largest_block(facts: Facts) -> float:
    """The share of the weights that is gathered at once: a block, or all that is in no block."""
    sizes: dict[int | None, int] = {}
    for tensor in facts.tensors:
        block = activations.block_of(tensor.name)
        sizes[block] = sizes.get(block, 0) + tensor.size
    return max(sizes.values(), default=0) / max(1, sum(sizes.values()))


def _share(item: MemoryItem, world: World) -> MemoryItem:
    on_gpu = world.device == "cuda"
    waits = {"none": (), "optimizer": ("optimizer",), "parameters": ("optimizer", "weights")}[world.offload]
    if item.name in waits and on_gpu:
        return item.model_copy(update={"bytes": 0})
    if item.name not in SHARED[world.sharding]:
        return item
    note = f"{item.note}, 1/{world.processes} of it" if item.note else f"1/{world.processes}"
    return item.model_copy(update={"bytes": item.bytes // world.processes, "note": note})


def _gb(value: int) -> str:
    return f"{value / 1e9:,.1f}" if value >= 1e9 else f"{value / 1e9:.2f}"
