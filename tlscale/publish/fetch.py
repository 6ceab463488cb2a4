"""Getting what somebody published: only files that are known, at one commit, into a fresh folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tlscale.errors import UsageError, VerificationError
from tlscale.publish import intake
from tlscale.publish.hub import Hub
from tlscale.publish.retry import HubError

HUB = "hub:"
SCHEMES = ("https://", "http://")


def is_address(text: str) -> bool:
    """Whether `text` names something on the Hub, and no folder."""
    return text.startswith((HUB, *SCHEMES))


def parse(text: str, hub: Hub) -> tuple[str, str]:
    """Repository and revision of `hub:ORG/NAME[@REVISION]`, or of the address of a page on the Hub.

    Raises:
        UsageError: it is neither; no other host is ever asked.
    """
    rest = text.removeprefix(HUB)
    if text.startswith(SCHEMES):
        asked, ours = urlsplit(text), urlsplit(hub.endpoint)
        if (asked.scheme, asked.netloc) != (ours.scheme, ours.netloc):
            raise UsageError(
                f"{text}: not the Hub ({hub.endpoint}); nothing is loaded from anywhere else: download it "
                "yourself, and look at it first"
            )
        rest = asked.path.strip("/").replace("/tree/", "@", 1)
    repository, _, revision = rest.partition("@")
    if not intake.HUB_ID.fullmatch(repository) or (revision and not intake.REVISION.fullmatch(revision)):
        raise UsageError(f"{text}: not an address on the Hub; write hub:ORG/NAME or hub:ORG/NAME@REVISION")
    return repository, revision or "main"


def fetch(text: str, hub: Hub, folder: Path) -> str:
    """Downloads the known files of `text` into the new `folder`, and returns `ORG/NAME at COMMIT`.

    Raises:
        UsageError: there is no such repository for this token, or its terms are not accepted.
        VerificationError: it has no weights in safetensors.
    """
    repository, revision = parse(text, hub)
    state = hub.state(repository, revision)
    if state is None:
        raise UsageError(
            f"{text}: no such model or revision on {hub.endpoint}, or the token may not see it"
        )
    names = intake.wanted({name: stored.size for name, stored in state.files.items()}, repository)
    try:
        hub.download(repository, state.commit, names, folder)
    except HubError:
        # terms that have to be accepted are named with their page
        hub.about(repository)
        raise
    for name in names:
        if (folder / name).stat().st_size != state.files[name].size:
            raise VerificationError(f"{repository}: {name} came in another size than listed; try again")
    return f"{repository} at {state.commit[:8]}"
