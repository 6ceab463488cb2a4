"""The Hub as publishing uses it: a few questions and actions over the official client, each persistent.

The token is the client's own affair: it reads HF_TOKEN or the file that `hf auth login` left, and puts it
into a header. It passes through nothing that is written or printed here.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tlscale.errors import TlscaleError, UsageError
from tlscale.publish.retry import HubError, MovedError, Patience, persistent, short, status_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")
MAIN = "main"
STALE = 412


@dataclass(frozen=True)
class Stored:
    """One file on the Hub: its size, git oid, and its SHA-256 where it is stored as a large file."""

    size: int
    oid: str
    sha256: str | None


@dataclass(frozen=True)
class State:
    """A repository at one revision."""

    commit: str
    private: bool
    files: Mapping[str, Stored]


@dataclass(frozen=True)
class Account:
    """Whose token it is: the user, the organizations with their role, and what the token may do."""

    name: str
    organizations: Mapping[str, str]
    token_role: str


@dataclass(frozen=True)
class About:
    """What the Hub says of a model or data set: its commit and the licence on its card, if any."""

    commit: str
    licence: str | None
    gated: bool
    files: tuple[str, ...]


class Hub:
    """One Hub and one account; every call is repeated until it gets through or patience ends."""

    def __init__(
        self, *, endpoint: str | None = None, token: str | None = None, patience: Patience | None = None
    ) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        self._api: HfApi = HfApi(endpoint=endpoint, token=token)
        self._patience = patience or Patience()

    @property
    def endpoint(self) -> str:
        """The address of the Hub."""
        return str(self._api.endpoint)

    def page(self, repository: str) -> str:
        """The address of a repository's page."""
        return f"{self.endpoint}/{repository}"

    def account(self) -> Account:
        """Who the token belongs to.

        Raises:
            UsageError: there is no token, or the Hub doesn't know it.
        """
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

        try:
            found: dict[str, Any] = self._ask(
                "asking who the token belongs to",
                self._api.whoami,
                keep=(HfHubHTTPError, LocalTokenNotFoundError),
            )
        except LocalTokenNotFoundError as error:
            raise UsageError(
                "no token for the Hub: set HF_TOKEN, or log in with `hf auth login`; it needs the right "
                "to write"
            ) from error
        except HfHubHTTPError as error:
            raise UsageError(
                f"the Hub does not accept this token ({status_of(error)}); make one with the right to "
                f"write on {self.endpoint}/settings/tokens, and set HF_TOKEN"
            ) from error
        made = {org["name"]: org.get("roleInOrg") or "write" for org in found.get("orgs", ())}
        role = found.get("auth", {}).get("accessToken", {}).get("role", "")
        return Account(str(found["name"]), made, str(role))

    def state(self, repository: str, revision: str = MAIN) -> State | None:
        """The files of a repository; `None` where there is no such repository or revision."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
        from huggingface_hub.hf_api import RepoFile

        def ask() -> State:
            info = self._api.model_info(repository, revision=revision)
            commit = str(info.sha)
            listed = self._api.list_repo_tree(repository, recursive=True, revision=commit)
            files = {
                entry.path: Stored(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
                for entry in listed
                if isinstance(entry, RepoFile)
            }
            return State(commit, bool(info.private), files)

        try:
            absent = (RepositoryNotFoundError, RevisionNotFoundError)
            return self._ask(f"reading {repository}", ask, keep=absent)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None

    def may_write(self, repository: str) -> bool:
        """Whether the token may write to an existing repository."""
        from huggingface_hub.errors import HfHubHTTPError

        def ask() -> None:
            self._api.auth_check(repository, write=True)

        try:
            self._ask(f"asking for the rights to {repository}", ask, keep=(HfHubHTTPError,))
        except HfHubHTTPError:
            return False
        return True

    def create(self, repository: str, *, private: bool) -> None:
        """Makes the repository, or leaves it as it is."""
        self._ask(
            f"creating {repository}",
            lambda: self._api.create_repo(repository, private=private, exist_ok=True),
        )

    def branch(self, repository: str, name: str) -> None:
        """Makes a branch of the main one, or leaves it as it is."""
        self._ask(
            f"making branch {name}",
            lambda: self._api.create_branch(repository, branch=name, exist_ok=True),
        )

    def drop_branch(self, repository: str, name: str) -> bool:
        """Removes a branch; False where that isn't possible, which harms nobody."""
        try:
            self._ask(f"removing branch {name}", lambda: self._api.delete_branch(repository, branch=name))
        except HubError:
            return False
        return True

    def commit(
        self,
        repository: str,
        revision: str,
        message: str,
        *,
        add: Mapping[str, Path],
        delete: Sequence[str],
        parent: str,
    ) -> None:
        """One commit of files; one try, because the caller must look before the next.

        Raises:
            MovedError: the branch is not at `parent` any more.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        operations: list[Any] = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)) for name, path in add.items()
        ]
        operations += [CommitOperationDelete(path_in_repo=name) for name in delete]
        try:
            self._api.create_commit(
                repository,
                operations,
                commit_message=message,
                revision=revision,
                parent_commit=parent,
            )
        except HfHubHTTPError as error:
            if status_of(error) == STALE:
                raise MovedError(f"{repository}: {revision} has moved on from {parent[:8]}") from error
            raise

    def download(self, repository: str, commit: str, names: Sequence[str], folder: Path) -> None:
        """Files of a commit into a new `folder`, from the Hub and not from a cache."""
        from huggingface_hub import hf_hub_download

        for name in names:

            def fetch(name: str = name) -> None:
                hf_hub_download(
                    repository,
                    name,
                    revision=commit,
                    local_dir=folder,
                    endpoint=self.endpoint,
                    token=self._api.token,
                    force_download=True,
                )

            self._ask(f"downloading {name} of {repository}", fetch)
        # the client's own records of what it downloaded
        shutil.rmtree(folder / ".cache", ignore_errors=True)

    def about(self, repository: str, revision: str | None = None, *, dataset: bool = False) -> About | None:
        """Commit and licence of a model or data set; `None` where there is none that the token may see.

        Raises:
            UsageError: the Hub has it, and the terms that it asks for are not accepted.
        """
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        def ask() -> Any:
            if dataset:
                return self._api.dataset_info(repository, revision=revision)
            self._api.auth_check(repository)
            return self._api.model_info(repository, revision=revision)

        try:
            found = self._ask(
                f"reading {repository}",
                ask,
                keep=(GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError),
            )
        except GatedRepoError as error:
            raise UsageError(
                f"{repository}: its terms have to be accepted first, with the account of the token, on "
                f"{self.page(repository)}"
            ) from error
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
        card = found.card_data.to_dict() if found.card_data is not None else {}
        licence = card.get("license")
        files = tuple(sibling.rfilename for sibling in found.siblings or ())
        said = licence if isinstance(licence, str) else None
        return About(str(found.sha), said, bool(getattr(found, "gated", False)), files)

    def persistent(self, step: str, action: Callable[[], Result]) -> Result:
        """An action of several calls, repeated as a whole; errors that won't pass become sentences."""
        return self._ask(step, action)

    def _ask(
        self, step: str, action: Callable[[], Result], keep: tuple[type[Exception], ...] = ()
    ) -> Result:
        """What `action` returns; of the client's errors only those in `keep` are passed on as they are."""
        errors = _errors()
        try:
            return persistent(step, action, errors, self._patience)
        except errors as error:
            if isinstance(error, (TlscaleError, *keep)):
                raise
            raise HubError(
                f"{step}: the Hub refuses: {short(error)}. Nothing is half published; see to that, and "
                "give the same command again"
            ) from error


def _errors() -> tuple[type[Exception], ...]:
    """What the client raises for the network, for refusals and for answers that were cut short."""
    from huggingface_hub import errors

    # the errors of whichever HTTP client this version of the library is built on
    transport = tuple(base for base in errors.HfHubHTTPError.__mro__[:-3] if issubclass(base, Exception))
    # a failed upload of one file arrives as RuntimeError, an answer cut short as ValueError
    return (*transport, OSError, ValueError, RuntimeError)
