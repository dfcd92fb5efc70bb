"""Models and data sets on the Hugging Face Hub: download and upload; owns huggingface_hub."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tagger.errors import ModelError, TaggerError
from tagger.paths import display_path

CONFIG_FILE = "config.json"
EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
SMALL_FILES = (CONFIG_FILE, *EXTRACTOR_FILES, *TOKENIZER_FILES)

MODEL_REPO, DATASET_REPO = "model", "dataset"
"""The kinds of repositories, as the Hub calls them."""

ByteProgress = Callable[[int, int], None]
"""Told how many bytes of how many were downloaded, in any thread; an error of it ends that."""


def find_cached_model(name: str, revision: str | None) -> Path:
    """Return the cached folder of a model, named by its commit; it need not hold the weights.

    A version that is in the cache is taken from there without asking the Hub. Raises ModelError.
    """
    with _translate_hub_errors(name, revision):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, CONFIG_FILE, revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent
    return download(name, revision, SMALL_FILES)


def download(
    name: str, revision: str | None, patterns: Sequence[str], progress: ByteProgress | None = None
) -> Path:
    """Download the files at the top of a model's repository that match. Raises ModelError."""
    with _translate_hub_errors(name, revision):
        from huggingface_hub import logging, snapshot_download

        logging.set_verbosity_error()
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns="*/*",
            tqdm_class=_make_bar_class(progress or (lambda _done, _total: None)),
        )
    return Path(folder)


def list_repo_files(name: str, revision: str, kind: str = MODEL_REPO) -> list[str]:
    """List the files of a model or a data set. Raises ModelError."""
    with _translate_hub_errors(name, revision, kind):
        from huggingface_hub import list_repo_files

        return list_repo_files(name, revision=revision, repo_type=kind)


def download_dataset(name: str, revision: str, pattern: str) -> Path:
    """Download the files of a data set that match, or find them in the cache. Raises ModelError."""
    with _translate_hub_errors(name, revision, DATASET_REPO):
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            name, repo_type=DATASET_REPO, revision=revision, allow_patterns=pattern
        )
    return Path(folder)


def silence_hub() -> None:
    """Keep huggingface_hub from showing bars and messages of its own, also where others call it."""
    from huggingface_hub import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.set_verbosity_error()
    disable_progress_bars()


@contextmanager
def _translate_hub_errors(
    name: str, revision: str | None, kind: str = MODEL_REPO
) -> Iterator[None]:
    """Say in one line what went wrong and what helps."""
    noun, page = {MODEL_REPO: ("model", name), DATASET_REPO: ("data set", f"datasets/{name}")}[kind]
    try:
        from huggingface_hub import constants, errors
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]
    except ValueError as error:
        raise ModelError(f"HF_ENDPOINT is no address: {error}") from error
    try:
        yield
    except errors.HFValidationError as error:
        raise ModelError(f"{name} is neither a model folder nor the id of a model") from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"the {noun} {name} is gated: accept its terms at {constants.ENDPOINT}/{page}, then log"
            " in (hf auth login) or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no {noun} {name} at {constants.ENDPOINT}, or it is private: check its id, or"
            " log in (hf auth login) or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"the {noun} {name} has no revision {revision}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise ModelError(
            f"the {noun} {name} is not in the cache ({constants.HF_HUB_CACHE}) as a whole, and"
            f" {describe_hub_failure(error)}: connect once to download it, or name a folder that holds it"
        ) from error
    except TaggerError:
        raise
    except Exception as error:  # of Xet's client, or of answers that nobody foresaw
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ModelError(f"cannot download {name}: {reason}") from error


def describe_hub_failure(error: BaseException) -> str:
    """Say why the Hub gave no answer that helps."""
    from huggingface_hub import constants, errors

    for each in (error, error.__cause__):
        if isinstance(each, errors.HfHubHTTPError):
            return f"{constants.ENDPOINT} answers with status {each.response.status_code}"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return f"{constants.ENDPOINT} cannot be reached"


def _make_bar_class(progress: ByteProgress) -> Any:
    """Return a tqdm class, as huggingface_hub wants, that shows nothing and calls `progress`."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"file": io.StringIO()})

        def display(self, *_args: Any, **_kwargs: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            if self.unit == "B" and self.total:
                progress(int(self.n), int(self.total))

    return Bar


UPLOADED_SUFFIXES = (".json", ".safetensors", ".md", ".png")
"""What is uploaded from the top of a folder, by how it ends; no folder, such as checkpoints and
logs, nothing hidden, no pickles, and no lists that could tell how somebody's disk is sorted."""

REFUSED_STATUSES = {401: "does not know the token", 403: "lets this token write nothing there"}
"""What the Hub means by a status."""

LOG_IN_HINT = "log in (hf auth login) or set HF_TOKEN to a token that may write"


def check_push(repo: str) -> str:
    """Return the whole id, owner and name, of a repository that `push` could write to.

    For the time before a long job: the Hub is asked who the token belongs to, and nothing is made
    there. Raises ModelError where the name is none, the owner is somebody else, or there is no
    token, or one that may only read.
    """
    with _translate_push_errors(repo):
        from huggingface_hub import whoami
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        validate_repo_id(repo)
        who = whoami()
        owner, _, name = repo.rpartition("/")
        role = who.get("auth", {}).get("accessToken", {}).get("role", "")
        if role == "read":
            raise ModelError(f"cannot push to {repo}: the token may only read: {LOG_IN_HINT}")
        owners = [who["name"], *(each["name"] for each in who.get("orgs", []))]
        if owner and role == "write" and owner not in owners:  # finer tokens may tell less
            raise ModelError(
                f"cannot push to {repo}: {who['name']} may only write to {', '.join(owners)}"
            )
    return f"{owner or who['name']}/{name}"


def push_model(
    folder: Path, repo: str, *, private: bool, message: str, progress: ByteProgress | None = None
) -> str:
    """Upload a model's folder as one commit, and return the address of that.

    The repository is made where there is none; one that is there stays as private as it was.
    `progress` is told, file by file, how many bytes of how many are there. Raises ModelError; the
    folder stays as it is in any case.
    """
    files = list_uploads(folder)
    later = f"; {display_path(folder)} stays, and can be pushed later"
    with _translate_push_errors(repo, later), warnings.catch_warnings(action="ignore"):
        # huggingface_hub warns of its own old ways, and of what the Hub thinks of a card
        from huggingface_hub import CommitOperationAdd, HfApi

        silence_hub()
        hub = HfApi()
        repo = hub.create_repo(repo, private=private, exist_ok=True).repo_id
        total = sum(path.stat().st_size for path in files)
        done, additions = 0, []
        for path in files:
            addition = CommitOperationAdd(path.name, path)
            hub.preupload_lfs_files(repo, [addition], free_memory=False)
            additions.append(addition)
            done += path.stat().st_size
            if progress:
                progress(done, total)
        return str(hub.create_commit(repo, additions, commit_message=message).commit_url)


def list_uploads(folder: Path) -> list[Path]:
    """Return what `push` uploads. Raises ModelError where that is nothing."""
    try:
        files = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix in UPLOADED_SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
    except OSError as error:
        raise ModelError(f"cannot read {display_path(folder)}: {error.strerror}") from error
    if not files:
        raise ModelError(f"{display_path(folder)} holds nothing to push")
    return files


@contextmanager
def _translate_push_errors(repo: str, later: str = "") -> Iterator[None]:
    """Say in one line what went wrong and what helps."""
    try:
        from huggingface_hub import constants, errors
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]
    except ValueError as error:
        raise ModelError(f"HF_ENDPOINT is no address: {error}") from error
    try:
        yield
    except TaggerError:
        raise
    except errors.HFValidationError as error:
        reason = "that is no name of a repository (owner/name)"
        raise ModelError(f"cannot push to {repo}: {reason}") from error
    except Exception as error:  # of Xet's client, or of answers that nobody foresaw
        reason = _describe_push_failure(error, constants.ENDPOINT, httpx.HTTPError)
        raise ModelError(f"cannot push to {repo}: {reason}{later}") from error


def _describe_push_failure(error: Exception, endpoint: str, unreachable: type[Exception]) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"there is no token: {LOG_IN_HINT}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    cause: BaseException = error
    while True:  # what failed is told by whom it reached first
        if (
            isinstance(cause, errors.HfHubHTTPError)
            and cause.response.status_code in REFUSED_STATUSES
        ):
            return f"{endpoint} {REFUSED_STATUSES[cause.response.status_code]}: {LOG_IN_HINT}"
        if isinstance(cause, unreachable):
            return describe_hub_failure(cause)
        if cause.__cause__ is None:
            return " ".join((str(cause) or repr(cause)).split())
        cause = cause.__cause__
