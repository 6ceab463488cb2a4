"""Config and safetensors headers of a model on the Hub, without its weights.

What the local cache holds is used first; the network is asked for the config and, by range requests, for
the headers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlscale.errors import PlanError
from tlscale.planning.headers import INDEX, SINGLE, Stored, read_folder, read_json, weight_map

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What loading takes: configurations, weights that can't carry code, and tokenizers.
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken")


@dataclass(frozen=True)
class Remote:
    """A model on the Hub at one commit; `tensors` is `None` where it has no safetensors."""

    commit: str
    config: dict[str, Any]
    tensors: dict[str, Stored] | None
    folder: Path


def read_hub(repository: str, revision: str | None, *, offline: bool, also: tuple[str, ...] = ()) -> Remote:
    """Reads what the plan needs of `repository`.

    Args:
        also: Further files to bring into the cache, where the repository has them.

    Raises:
        PlanError: there is no such repository, revision or config; access is refused; or it is not in the
            cache and can't be asked for.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with _refusals(repository, revision):
        config = Path(
            hf_hub_download(repository, "config.json", revision=revision, local_files_only=offline)
        )
        commit = config.parent.name
        for name in also:
            with suppress(EntryNotFoundError):
                hf_hub_download(repository, name, revision=commit, local_files_only=offline)
        tensors = _cached(config.parent)
        if tensors is None and not offline:
            tensors = _headers(HfApi(), repository, commit)
    return Remote(commit, read_json(config), tensors, config.parent)


def fetch_hub(repository: str, revision: str | None, *, code: bool) -> Path:
    """Downloads all that loading a model needs into the Hub's cache; what is there already stays.

    Args:
        code: Whether its Python code is fetched too.

    Returns:
        The folder in the cache.

    Raises:
        PlanError: there is no such repository or revision, or access is refused.
    """
    from huggingface_hub import snapshot_download

    wanted = [*FILES, "*.py"] if code else list(FILES)
    with _refusals(repository, revision):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))


def fetched(repository: str, revision: str | None, *, code: bool) -> bool:
    """Whether the cache has weights of a model to load without the Hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = [*FILES, "*.py"] if code else list(FILES)
    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=wanted, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return False
    return any(Path(folder).glob("*.safetensors"))


@contextmanager
def _refusals(repository: str, revision: str | None) -> Iterator[None]:
    """The Hub client's errors as one sentence each on what is wrong and what to do."""
    from huggingface_hub import constants, errors

    # the errors of whichever HTTP client this version of the library is built on
    transport = tuple(base for base in errors.HfHubHTTPError.__mro__[:-3] if issubclass(base, Exception))
    where = f"model.model_name_or_path: {repository}"
    at = f" at revision {revision}" if revision else ""
    try:
        yield
    except errors.HFValidationError as error:
        said = f"neither a folder here nor a valid Hub id ({error})"
        raise PlanError(f"{where}: {said}") from error
    except errors.GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{repository}"
        said = f"access is by request; accept its terms on {page}, and set HF_TOKEN"
        raise PlanError(f"{where}: {said}") from error
    except errors.RevisionNotFoundError as error:
        said = f"has no revision {revision}; see the branches and commits there"
        raise PlanError(f"{where}: {said}") from error
    except errors.RepositoryNotFoundError as error:
        said = "no such folder, and no such model on the Hub (private ones need HF_TOKEN)"
        raise PlanError(f"{where}: {said}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        said = (
            "no such folder, not in the Hub cache, and the Hub can't be reached; download it with a "
            f"connection (hf download {repository}) or give a local folder"
        )
        raise PlanError(f"{where}{at}: {said}") from error
    except errors.EntryNotFoundError as error:
        said = "has no config.json, so it is no transformers model"
        raise PlanError(f"{where}{at}: {said}") from error
    except transport as error:
        said = f"the Hub can't be reached ({type(error).__name__}: {error})"
        raise PlanError(f"{where}: {said}") from error


def _cached(snapshot: Path) -> dict[str, Stored] | None:
    """Tensors of the weights that are already in the cache, `None` unless all of them are."""
    if (snapshot / SINGLE).is_file():
        return read_folder(snapshot)
    index = snapshot / INDEX
    if index.is_file() and all((snapshot / shard).is_file() for shard in weight_map(index).values()):
        return read_folder(snapshot)
    return None


def _headers(api: HfApi, repository: str, commit: str) -> dict[str, Stored] | None:
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    try:
        found = api.get_safetensors_metadata(repository, revision=commit)
    except NotASafetensorsRepoError:
        return None
    except SafetensorsParsingError as error:
        raise PlanError(
            f"{repository} @ {commit[:8]}: its safetensors header is corrupt: {error}"
        ) from error
    return {
        name: Stored(tensor.dtype, tuple(tensor.shape))
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
