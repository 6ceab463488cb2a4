"""A folder onto the Hub: to a branch, down again, verified, and only then to everybody.

Before every step the Hub is asked what it has, so a push that was cut off anywhere is finished by the same
command, and one that is finished does nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tlscale.errors import UsageError, VerificationError
from tlscale.publish.digests import THEIRS, Digest, digests, same, seal
from tlscale.publish.hub import MAIN, Hub, State
from tlscale.publish.retry import HubError, MovedError, NotYetError

RECORD = "tlscale.json"
# What a repository may hold that nobody has published to yet.
EMPTY = THEIRS | {"README.md", "LICENSE"}
BRANCH = "tlscale-"

Say = Callable[[str], None]
Verify = Callable[[Path], None]


@dataclass(frozen=True)
class Published:
    """What is on the Hub now; `changed` is False where it was there before."""

    repository: str
    commit: str
    private: bool
    changed: bool
    page: str


@dataclass(frozen=True)
class Target:
    """Where to publish, and whether it is for everybody; `title` is the commit's."""

    repository: str
    private: bool
    title: str


def push(folder: Path, target: Target, hub: Hub, verify: Verify, say: Say) -> Published:
    """Publishes exactly the files of `folder`, or leaves what the Hub's readers see as it was.

    Args:
        verify: Gets a folder with the Hub's copy, and raises when it is not good.
        say: Gets one line for each phase.

    Raises:
        UsageError: the repository is not ours to write to, or not as private as asked.
        VerificationError: what came back is not what was sent, or not good.
        HubError: the Hub refused or failed; the same command goes on from there.
    """
    wanted = digests(folder)
    before = opened(target, hub)
    if same(wanted, before.files):
        say("the Hub has exactly this already; nothing to do")
        _tidy(target, hub, wanted)
        return Published(
            target.repository, before.commit, before.private, False, hub.page(target.repository)
        )
    branch = BRANCH + seal(wanted)
    hub.branch(target.repository, branch)
    staged = _committed(folder, wanted, target, hub, branch, expected=None)
    say(f"uploaded to branch {branch}")
    _verified(wanted, target, hub, staged, verify)
    say("downloaded again: every hash and the outputs are the same")
    after = _committed(folder, wanted, target, hub, MAIN, expected=before)
    _tidy(target, hub, wanted)
    return Published(target.repository, after.commit, after.private, True, hub.page(target.repository))


def opened(target: Target, hub: Hub) -> State:
    """The repository to publish to, made if it isn't there.

    Raises:
        UsageError: it holds what was not published from here, or is public where private was asked.
    """
    found = hub.state(target.repository)
    if found is None:
        hub.create(target.repository, private=target.private)
        found = hub.state(target.repository)
    if found is None:
        raise HubError(f"{target.repository}: made, and not to be seen; give the same command again")
    check_ours(target.repository, found)
    if found.private != target.private:
        now, flag = ("private", "--private") if found.private else ("public", "--public")
        raise UsageError(
            f"{target.repository} is {now} already, and this push asks for the other: change it in the "
            f"settings on {hub.page(target.repository)}/settings, or give {flag}"
        )
    return found


def check_ours(repository: str, state: State) -> None:
    """Refuses to write over what somebody put there in another way.

    Raises:
        UsageError: the repository has files and no record of a publication.
    """
    theirs = sorted(name for name in state.files if name not in EMPTY)
    if theirs and RECORD not in state.files:
        raise UsageError(
            f"{repository} holds files that were not published by tlscale ({', '.join(theirs[:5])}); "
            "nothing is written over them: choose another name with --to"
        )


def _committed(
    folder: Path,
    wanted: dict[str, Digest],
    target: Target,
    hub: Hub,
    revision: str,
    *,
    expected: State | None,
) -> State:
    """The state of `revision` with just the wanted files, by at most one commit.

    Each try looks first: a commit whose answer was lost must not be made twice.
    """

    def once() -> State:
        head = hub.state(target.repository, revision)
        if head is None:
            raise HubError(f"{target.repository}: branch {revision} is gone; give the same command again")
        if same(wanted, head.files):
            return head
        if expected is not None and head.files != expected.files:
            raise HubError(
                f"{target.repository}: somebody changed it while this was published; look at "
                f"{hub.page(target.repository)}, and give the same command again to publish over it"
            )
        add = {n: folder / n for n, d in wanted.items() if not d.is_stored(head.files.get(n))}
        gone = [name for name in head.files if name not in wanted and name not in THEIRS]
        try:
            hub.commit(target.repository, revision, target.title, add=add, delete=gone, parent=head.commit)
        except MovedError as error:
            # as transient as a busy server: the next try looks where the branch is now
            raise NotYetError(str(error)) from None
        made = hub.state(target.repository, revision)
        if made is None or not same(wanted, made.files):
            raise NotYetError(f"{target.repository}: the commit does not hold what was sent")
        return made

    step = "uploading" if expected is None else "promoting the verified files"
    return hub.persistent(step, once)


def _verified(wanted: dict[str, Digest], target: Target, hub: Hub, staged: State, verify: Verify) -> None:
    """Compares the Hub's copy with what was sent, and lets `verify` judge it."""
    with tempfile.TemporaryDirectory(prefix="tlscale-") as made:
        copy = Path(made) / "copy"

        def fetched() -> None:
            hub.download(target.repository, staged.commit, sorted(wanted), copy)
            back = digests(copy)
            wrong = sorted(name for name, one in wanted.items() if back.get(name) != one)
            if wrong:
                raise NotYetError(f"{', '.join(wrong)} came back other than sent")

        try:
            hub.persistent("comparing the Hub's copy", fetched)
        except HubError as error:
            raise VerificationError(f"{target.repository}: not promoted. {error}") from error
        verify(copy)


def _tidy(target: Target, hub: Hub, wanted: dict[str, Digest]) -> None:
    """Removes the branch of this push; one that stays does no harm."""
    if hub.state(target.repository, BRANCH + seal(wanted)) is not None:
        hub.drop_branch(target.repository, BRANCH + seal(wanted))
