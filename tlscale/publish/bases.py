"""The base model as others find it: a published adapter must stand on something that everybody can load."""

from __future__ import annotations

from pathlib import Path

from tlscale.errors import UsageError
from tlscale.planning.types import Plan
from tlscale.publish.content import Base
from tlscale.publish.digests import digest
from tlscale.publish.hub import About, Hub
from tlscale.recipe.paths import BUILTIN


def base_on_hub(plan: Plan, hub: Hub, named: str | None) -> tuple[Base, About]:
    """The base of `plan` on the Hub, and what the Hub says of it.

    Args:
        named: The id under which a base from a folder is on the Hub, if the user gave one.

    Raises:
        UsageError: the base is a folder and nobody else can have it, it is gated and its terms are not
            accepted, or the Hub has other weights under that name.
    """
    facts = plan.facts
    is_local = facts.commit is None
    if is_local and named is None:
        kind = "comes with tlscale" if facts.model.startswith(BUILTIN) else "is a folder on this machine"
        raise UsageError(
            f"the base {facts.model} {kind}, and an adapter that names it loads nowhere else: give --base "
            "ORG/NAME where the same weights are on the Hub, or --merged to publish base and adapter in one"
        )
    name = named or facts.model
    about = hub.about(name, None if is_local else facts.commit)
    if about is None:
        raise UsageError(
            f"the base {name} is not on the Hub, or the token may not see it; look at {hub.page(name)}"
        )
    if is_local:
        _same_weights(Path(facts.folder), name, about.commit, hub)
    return Base(name, about.commit if is_local else str(facts.commit)), about


def _same_weights(folder: Path, name: str, commit: str, hub: Hub) -> None:
    """Compares the weights of a folder with those that the Hub has, by their hashes alone."""
    state = hub.state(name, commit)
    ours = {path.name: digest(path) for path in folder.glob("*.safetensors")}
    stored = {} if state is None else state.files
    other = sorted(file for file, one in ours.items() if not one.is_stored(stored.get(file)))
    if other or not ours:
        raise UsageError(
            f"--base {name}: the Hub has other weights there than {folder} ({', '.join(other) or 'none'}); "
            "an adapter fits the base that it was trained on"
        )
