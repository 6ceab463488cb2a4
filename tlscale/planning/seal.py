"""The fingerprint of a plan, by which a plan that was changed, or is another version's, is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tlscale import __version__
from tlscale.planning.types import Plan

# what decides nothing of what a run does
UNSEALED = ("fingerprint", "versions", "notes")
UNSEALED_SECTIONS = ("launch", "publish", "sweep")


def fingerprint(plan: Plan) -> str:
    """Sixteen hex digits over everything that decides what the run does.

    Versions are left out, and so are the cluster that it is started on, the search around it and where the
    result is published.
    """
    return _digest(plan.model_dump(mode="json"))


def foreign(text: str) -> str:
    """What to say of a plan's file that lies as it was written, but which this version reads otherwise.

    Args:
        text: All of the file.

    Returns:
        Which version has written it and what to do; empty for a file that was changed.
    """
    try:
        written = json.loads(text)
        as_written = _digest(written) == written["fingerprint"]
        version = str(written["versions"].get("tlscale", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""
    if not as_written:
        return ""
    which = f"tlscale {version}" if version else "a version of tlscale that it doesn't name"
    if version == __version__:
        which = f"another build of tlscale {version}"
    return (
        f"written by {which} and not changed since, but plans of tlscale {__version__} have other fields; "
        "to go on with this run, install that version again; to train with the one here, start the run's "
        "recipe.yaml with another output_dir"
    )


def _digest(written: Mapping[str, Any]) -> str:
    """The fingerprint of a plan's values as JSON has them, whichever version has written them."""
    content = {name: value for name, value in written.items() if name not in UNSEALED}
    sections = content["recipe"].items()
    content["recipe"] = {name: value for name, value in sections if name not in UNSEALED_SECTIONS}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
